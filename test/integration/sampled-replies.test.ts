// A prompt contains the model's earlier replies with the tokens that were sampled, even if the client sends the replies
// back in another form.
import type { AgentServer, ChatMessage, ChatRequest, Reply } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, startAgent } from '../helpers/agents.js';
import { SYSTEM_PROMPT } from '../helpers/prompts.js';
import { coldTokens, promptWith, renderedTokens, tokensOf } from '../helpers/sampled.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const user = (content: string): ChatMessage => ({ role: 'user', content });
const QUESTION = user('My chain broke. What now?');
const NEXT = user('And then?');

/** Samples until the model ends the reply by itself. */
const RANDOM = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 7 };
const source = { systemPrompt: SYSTEM_PROMPT, tools: [] };

const endOf = async (agent: AgentServer) =>
  (await agent.model.tokenize('<|im_end|>', { parseSpecial: true }))[0] as number;

/** Sampling options with which a micro model ends its replies after a few tokens. */
async function endingSampling(agent: AgentServer, seed: number) {
  return { ...RANDOM, seed, logitBias: { [await endOf(agent)]: 4 } };
}

const ask = (agent: AgentServer, messages: readonly ChatMessage[], more: Partial<ChatRequest> = {}) =>
  agent.chat({ messages, maxTokens: 24, logProbabilities: 0, ...more }).result;

async function isCanonical(agent: AgentServer, reply: Reply): Promise<boolean> {
  const again = await agent.model.tokenize(reply.text);
  return JSON.stringify([...again]) === JSON.stringify(tokensOf(reply));
}

/** Asks until the model ends a reply by itself whose tokens differ from the tokens of its text. */
async function sampleReply(agent: AgentServer, messages: readonly ChatMessage[], more: Partial<ChatRequest> = {}) {
  for (let seed = 1; seed < 400; seed++) {
    const reply = await ask(agent, messages, { sampling: await endingSampling(agent, seed), ...more });
    if (reply.finishReason === 'stop' && tokensOf(reply).length > 6 && !(await isCanonical(agent, reply))) {
      return reply;
    }
  }
  throw new Error('Expected a reply with other tokens than its text');
}

describe.each(MEMORIES)('with the %s model, a later request', (name) => {
  it('contains the sampled tokens of a reply, and gets the reply of a cold run over these tokens', async () => {
    const agent = await startAgent({ name, ...EXACT });
    const reply = await sampleReply(agent, [QUESTION]);
    const messages = [QUESTION, { role: 'assistant' as const, content: reply.text }, NEXT];
    const after = await ask(agent, messages, { maxTokens: 8 });
    const before = await renderedTokens(agent, source, [QUESTION]);
    const rendered = await renderedTokens(agent, source, messages);
    const expected = promptWith(before, tokensOf(reply), rendered, await endOf(agent));
    expect(after.usage.inputTokens).toBe(expected.length);
    expect(after.usage.cachedInputTokens).toBeGreaterThanOrEqual(before.length + tokensOf(reply).length - 1);
    expect(tokensOf(after)).toEqual(await coldTokens(name, expected, 8));
  });
});
