// What the turns of a stateless client cost: each request has the whole conversation, and prefills only what is new.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { AgentServer, ChatMessage } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, startAgent } from '../helpers/agents.js';
import type { MicroModelName } from '../helpers/models.js';

const QUESTIONS = ['My chain broke. What now?', 'What does a new one cost?', 'And the labor?', 'Thank you'];
const MARGIN = 8;
const MEMORIES: MicroModelName[] = ['dense', 'sliding-window', 'recurrent', 'hybrid'];
/** Leaves out the reasoning of earlier replies. The micro models never end their reasoning, so nothing is left. */
const REASONING_TEMPLATE = readFileSync(
  fileURLToPath(new URL('../../vendor/llama.cpp/models/templates/Qwen-QwQ-32B.jinja', import.meta.url)),
  'utf8',
);

interface Figures {
  inputTokens: number;
  outputTokens: number;
  prefilledTokens: number;
}

/** Asks the questions in separate requests, and calls `between` after each of them. */
async function converse(
  agent: AgentServer,
  between: () => Promise<unknown> = async () => undefined,
): Promise<Figures[]> {
  const messages: ChatMessage[] = [];
  const turns: Figures[] = [];
  for (const content of QUESTIONS) {
    messages.push({ role: 'user', content });
    const { text, reasoning, usage, cache } = await agent.chat({ messages, maxTokens: 12 }).result;
    messages.push({ role: 'assistant', content: text, ...(reasoning !== '' && { reasoning }) });
    const { inputTokens, outputTokens } = usage;
    turns.push({ inputTokens, outputTokens, prefilledTokens: cache.prefilledTokens });
    await between();
  }
  return turns;
}

/** Asks for a title, as agents do beside the main conversation. */
const askForTitle = (agent: AgentServer, number: number) => {
  const system = { role: 'system', content: 'You write titles.' } as const;
  const question = { role: 'user', content: `Write a title for conversation ${number}.` } as const;
  return agent.chat({ messages: [system, question], maxTokens: 4 }).result;
};

/** For each turn after the first: how many tokens it prefilled beyond those that the previous prompt did not have. */
const prefilledAgain = (turns: readonly Figures[], repeatsReplies: boolean): number[] =>
  turns.slice(1).map(({ inputTokens, prefilledTokens }, index) => {
    const previous = turns[index] as Figures;
    return prefilledTokens - (inputTokens - previous.inputTokens - (repeatsReplies ? previous.outputTokens : 0));
  });

describe.each(MEMORIES)('with the %s model', (name) => {
  const settings: AgentSettings = { name, ...EXACT, nSeqMax: 2 };

  it('a turn prefills its new tokens and at most 8 more, and requests for titles between the turns change nothing', async () => {
    const agent = await startAgent(settings);
    const turns = await converse(agent);
    expect(Math.max(...prefilledAgain(turns, true))).toBeLessThanOrEqual(MARGIN);
    const other = await startAgent(settings);
    let titles = 0;
    expect(await converse(other, () => askForTitle(other, titles++))).toEqual(turns);
  });

  it('a turn also prefills the last reply if the chat template rewrites it', async () => {
    const agent = await startAgent({ ...settings, chatTemplate: REASONING_TEMPLATE });
    const turns = await converse(agent);
    expect(Math.max(...prefilledAgain(turns, false))).toBeLessThanOrEqual(MARGIN);
    const other = await startAgent({ ...settings, chatTemplate: REASONING_TEMPLATE });
    let titles = 0;
    expect(await converse(other, () => askForTitle(other, titles++))).toEqual(turns);
  });

  it('eight requests that arrive together prefill their cold head once', async () => {
    const agent = await startAgent({ name, ...EXACT, nSeqMax: 8 });
    const system = {
      role: 'system',
      content: 'You repair bicycles. Be brief and say when you are not sure. '.repeat(16),
    } as const;
    const requests = Array.from({ length: 8 }, (_, index) => ({
      messages: [system, { role: 'user', content: `Task ${index}: what is left to do?` } as const],
      maxTokens: 4,
    }));
    const [first, second] = requests as [(typeof requests)[0], (typeof requests)[0]];
    const { sharedTokens: head } = await agent.explain(first, second);
    const replies = await Promise.all(requests.map((request) => agent.chat(request).result));
    const sum = (values: number[]) => values.reduce((total, each) => total + each, 0);
    const own = sum(replies.map(({ usage }) => usage.inputTokens - head));
    expect(head).toBeGreaterThan(200);
    expect(sum(replies.map(({ cache }) => cache.prefilledTokens))).toBeLessThanOrEqual(head + own + 8 * MARGIN);
  });
});
