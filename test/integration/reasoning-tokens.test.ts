// `usage.reasoningTokens` is the number of generated tokens that were reasoning.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ReasoningCounter, Renderer, ReplyReader, UsageCounter } from 'llama-headstart/internal';
import { Model } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { likelyText } from '../helpers/likely-text.js';

const TEMPLATE = readFileSync(
  fileURLToPath(new URL('../../vendor/llama.cpp/models/templates/Qwen-Qwen3-0.6B.jinja', import.meta.url)),
  'utf8',
);

/** Returns a reply whose sampling options favor `text`, together with the texts of its tokens. */
async function replyWith(text: string, maxTokens = 16) {
  const session = await (await startAgent({ chatTemplate: TEMPLATE })).createSession();
  const sampling = { ...(await likelyText(text)), penaltyLastTokens: 8 };
  const reply = await session.send('chain', { sampling, maxTokens, logProbabilities: 0 });
  return { ...reply, tokens: reply.logProbabilities?.map((token) => token.text) as string[] };
}

describe('reasoningTokens', () => {
  it('counts the tokens from the opening marker of the reasoning to its last character', async () => {
    const { usage, tokens, reasoning, text } = await replyWith('<think>Hm.</think>Yes');
    expect({ reasoning: reasoning.startsWith('Hm.'), text: text !== '' }).toEqual({ reasoning: true, text: true });
    expect(tokens.indexOf('</think>')).toBeGreaterThan(1);
    expect(usage).toMatchObject({ outputTokens: tokens.length, reasoningTokens: tokens.indexOf('</think>') });
  });

  it('counts every token of a reply that is cut off inside its reasoning', async () => {
    const { usage, text } = await replyWith('<think>Hm.</think>Yes', 3);
    expect(text).toBe('');
    expect(usage).toMatchObject({ outputTokens: 3, reasoningTokens: 3 });
  });

  it('is 0 for a reply without reasoning', async () => {
    const { usage, tokens, reasoning } = await replyWith('Yes');
    expect(reasoning).toBe('');
    expect(usage).toMatchObject({ outputTokens: tokens.length, reasoningTokens: 0 });
  });

  it('is within 1 % of the exact number for a long reply, which is not parsed at each token', async () => {
    const path = fileURLToPath(new URL('../../vendor/llama.cpp/models/ggml-vocab-qwen2.gguf', import.meta.url));
    const model = await Model.load({ path, vocabularyOnly: true });
    const { format } = await new Renderer(model, TEMPLATE).prompt({}, [{ role: 'user', content: 'Hi' }]);
    const reader = new ReplyReader(model, format, true);
    const usage = new UsageCounter();
    const counter = new ReasoningCounter(reader, usage);
    const tokens = ['<think>', ...Array(1000).fill('Hm. '), '</think>', ...Array(500).fill('Yes ')];
    for (const token of tokens) {
      usage.token(undefined);
      await reader.push(token);
      counter.update();
    }
    await reader.finish(false);
    counter.update();
    await model.close();
    const { outputTokens, reasoningTokens } = usage.total();
    expect(outputTokens).toBe(tokens.length);
    expect(Math.abs(reasoningTokens - 1001)).toBeLessThan(10);
  });
});
