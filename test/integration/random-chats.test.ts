// Random programs send stateless requests to an agent with few sequences and little memory: new conversations,
// continuations, branches, tenants, cache hints, aborts and simultaneous requests. Each request must give the logits of
// an agent that computes the whole conversation of the request anew.
import type { AgentServer, CacheHint, ChatMessage, Reply } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, shareReplies, startAgent } from '../helpers/agents.js';
import { expectSameFirstToken } from '../helpers/first-token.js';
import { random } from '../helpers/random.js';
import { rounds, variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const LAYOUTS = ['unified', 'split'] as const;

interface Request {
  messages: readonly ChatMessage[];
  tenant: string;
  cacheHints: readonly CacheHint[];
}

const WORDS = ['chain', 'wheel', 'brake', 'saddle', 'price', 'repair', 'today', 'again'];

/** Asks for one reply. The tests compare the log-probabilities of its first token. */
const ask = (agent: AgentServer, request: Request, signal?: AbortSignal): Promise<Reply> =>
  agent.chat({ ...request, maxTokens: 6, logProbabilities: 3, ...(signal && { signal }) }).result;

/** Returns the next request: a new conversation, or a continuation or branch of an earlier conversation. */
function nextRequest(done: readonly { request: Request; reply: Reply }[], below: (max: number) => number): Request {
  const words = Array.from({ length: 1 + below(12) }, () => WORDS[below(WORDS.length)]).join(' ');
  const message: ChatMessage = { role: 'user', content: `${words}?` };
  const earlier = done[below(done.length + 2)];
  if (earlier === undefined) {
    return { messages: [message], tenant: below(4) === 0 ? 'other' : 'one', cacheHints: [{ system: true }] };
  }
  const { request, reply } = earlier;
  const history: ChatMessage[] = [...request.messages, { role: 'assistant', content: reply.text }];
  const kept = below(3) === 0 ? 2 * below(history.length / 2 + 1) : history.length; // a branch, or a continuation
  const messages = [...history.slice(0, kept), message];
  return { messages, tenant: request.tenant, cacheHints: [{ message: below(messages.length + 1) }] };
}

/** Runs a program, and returns all requests that got a reply. */
async function runProgram(agent: AgentServer, steps: number, below: (max: number) => number) {
  const done: { request: Request; reply: Reply }[] = [];
  for (let step = 0; step < steps; step++) {
    const requests = Array.from({ length: 1 + below(3) }, () => nextRequest(done, below));
    const replies = requests.map(async (request) => {
      const controller = new AbortController();
      if (below(6) === 0) {
        setImmediate(() => controller.abort());
      }
      const reply = await ask(agent, request, controller.signal).catch((error: { code?: string }) => {
        expect(['ABORTED', 'CONTEXT_FULL']).toContain(error.code); // a long conversation may outgrow the context
      });
      if (reply !== undefined) {
        done.push({ request, reply });
      }
    });
    await Promise.all(replies);
    const { states, kvCells } = agent.health();
    expect(states.bytes).toBeLessThanOrEqual(states.maxBytes);
    if (!agent.model.info.recurrent) {
      expect(kvCells.used).toBeLessThanOrEqual(kvCells.total); // recurrent states take no cells
    }
  }
  return done;
}

describe.each(MEMORIES)('a random program of requests with the %s model', (name) => {
  const layouts = variants(LAYOUTS, (layout) => (layout === 'split') === (name === 'hybrid'));
  it.each(layouts)('gets the logits of cold requests, in the %s layout', async (kvLayout) => {
    const settings: AgentSettings = { name, kvLayout, contextSize: 512, nSeqMax: 3, ...EXACT };
    const agent = await startAgent({ ...settings, maxMemoryBytes: 2 ** 20 });
    const done = await runProgram(agent, rounds(9, 120), random(MEMORIES.indexOf(name) + 1));
    expect(done.length).toBeGreaterThan(8);
    expect(done.some(({ reply }) => reply.usage.cachedInputTokens > 60)).toBe(true);
    const cold = await startAgent({ ...settings, nSeqMax: 1, maxMemoryBytes: 0, maxResidentTemplates: 0 });
    shareReplies(agent, cold);
    for (const { request, reply } of done) {
      await cold.chat({ messages: [{ role: 'user', content: 'x'.repeat(200) }], tenant: 'nobody', maxTokens: 1 })
        .result;
      const expected = await ask(cold, request);
      expect(expected.usage.cachedInputTokens).toBe(0);
      expectSameFirstToken(reply, expected);
    }
  });
});
