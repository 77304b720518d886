// Usage says how many of the generated tokens were reasoning.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { likelyText } from '../helpers/likely-text.js';

const TEMPLATE = readFileSync(
  fileURLToPath(new URL('../../vendor/llama.cpp/models/templates/Qwen-Qwen3-0.6B.jinja', import.meta.url)),
  'utf8',
);

/** The reply of a model that most likely writes `text`, with the texts of its tokens. */
async function replyWith(text: string, maxTokens = 16) {
  const session = await (await startAgent({ chatTemplate: TEMPLATE })).createSession();
  const sampling = { ...(await likelyText(text)), penaltyLastTokens: 8 };
  const reply = await session.send('chain', { sampling, maxTokens, logProbabilities: 0 });
  return { ...reply, tokens: reply.logProbabilities?.map((token) => token.text) as string[] };
}

describe('reasoningTokens', () => {
  it('counts the tokens from the opening of the thought to its last character', async () => {
    const { usage, tokens, reasoning, text } = await replyWith('<think>Hm.</think>Yes');
    expect({ reasoning: reasoning.startsWith('Hm.'), text: text !== '' }).toEqual({ reasoning: true, text: true });
    expect(tokens.indexOf('</think>')).toBeGreaterThan(1);
    expect(usage).toMatchObject({ outputTokens: tokens.length, reasoningTokens: tokens.indexOf('</think>') });
  });

  it('counts every token of a reply that is cut off inside its thought', async () => {
    const { usage, text } = await replyWith('<think>Hm.</think>Yes', 3);
    expect(text).toBe('');
    expect(usage).toMatchObject({ outputTokens: 3, reasoningTokens: 3 });
  });

  it('is 0 for a reply without a thought', async () => {
    const { usage, tokens, reasoning } = await replyWith('Yes');
    expect(reasoning).toBe('');
    expect(usage).toMatchObject({ outputTokens: tokens.length, reasoningTokens: 0 });
  });
});
