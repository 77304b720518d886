// More conversations than sequences, and one-off requests beside conversations. No conversation loses its state to a
// one-off request, and all replies are those of a cold agent.
import type { AgentServer, ChatMessage, Reply } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, shareReplies, startAgent } from '../helpers/agents.js';
import { expectSameFirstToken } from '../helpers/first-token.js';
import { assistant, prefilledBy, user } from '../helpers/messages.js';
import { rounds, variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const OPTIONS = { maxTokens: 4, logProbabilities: 3 } as const;
/** An upper bound of the tokens of a short message and the markup around it. */
const NEW_TOKENS = 60;
const LONG = 'My chain broke. It was old and worn. '.repeat(10);

const ask = (agent: AgentServer, messages: ChatMessage[]) => agent.chat({ messages, ...OPTIONS }).result;

/** Sends messages in separate requests, after `history`. Returns the history and the newest reply. */
async function converse(agent: AgentServer, contents: readonly string[], history: readonly ChatMessage[] = []) {
  let messages = [...history];
  let reply: Reply | undefined;
  for (const content of contents) {
    messages.push(user(content));
    reply = await ask(agent, messages);
    messages = [...messages, assistant(reply.text)];
  }
  return { messages, reply: reply as Reply };
}

/** Expects that a reply begins as in an agent without reuse. */
async function expectAsCold(
  agent: AgentServer,
  cold: AgentServer,
  { messages, reply }: { messages: ChatMessage[]; reply: Reply },
) {
  shareReplies(agent, cold);
  expectSameFirstToken(reply, await ask(cold, messages.slice(0, -1)));
}

const coldAgent = (settings: AgentSettings) =>
  startAgent({ ...settings, nSeqMax: 1, maxMemoryBytes: 0, maxResidentTemplates: 0 });

describe.each(variants(MEMORIES, (name) => name === 'dense' || name === 'hybrid'))('with the %s model', (name) => {
  it('one-off requests displace neither the state of a conversation nor a template', async () => {
    const settings: AgentSettings = { name, ...EXACT, nSeqMax: 2, contextSize: 2048 };
    const agent = await startAgent({ ...settings, maxMemoryBytes: 2 ** 22 });
    const { messages } = await converse(agent, [LONG, 'What does a new one cost?']);
    const oneOff = (topic: number) => ask(agent, [user(`${topic}. ${'Something else. '.repeat(20)}`)]);
    for (let topic = 0; topic < 2; topic++) {
      await Promise.all([oneOff(2 * topic), oneOff(2 * topic + 1)]);
    }
    const next = await converse(agent, ['Thank you'], messages);
    expect(prefilledBy(next.reply)).toBeLessThan(NEW_TOKENS);
    await expectAsCold(agent, await coldAgent(settings), next);
    const { report } = await agent.createSession();
    expect(report.cache).toBe('hit');
  });

  it.each([2 ** 21, 0])(
    'requests that continue one conversation at the same time get the replies of a cold agent (%i bytes)',
    async (maxMemoryBytes) => {
      const settings: AgentSettings = { name, ...EXACT, nSeqMax: 3, contextSize: 2048 };
      const agent = await startAgent({ ...settings, maxMemoryBytes });
      const { messages } = await converse(agent, [LONG]);
      const ends = ['What does it cost?', 'How long does it take?', 'Is it worth it?'];
      const all = await Promise.all(ends.map((end) => converse(agent, [end], messages)));
      const shorter = await converse(agent, ['Hello'], messages.slice(0, 0)); // the client has started over
      const cold = await coldAgent(settings);
      for (const each of [...all, shorter]) {
        await expectAsCold(agent, cold, each);
      }
      expect(agent.health()).toMatchObject({ activeSessions: 0, queueLength: 0 });
    },
  );
});

it('many conversations on 8 sequences get the replies of a cold agent within a small budget', async () => {
  const settings: AgentSettings = { ...EXACT, nSeqMax: 8, contextSize: 512 };
  const agent = await startAgent({ ...settings, maxMemoryBytes: 2 ** 21 });
  const names = Array.from({ length: rounds(24, 200) }, (_, index) => `Number ${index}`);
  const all = await Promise.all(names.map((name) => converse(agent, [`I am ${name}.`, 'Who am I?'])));
  const { states, heldSequences } = agent.health();
  expect(heldSequences).toBeLessThanOrEqual(8);
  expect(states.bytes + states.transferBytes).toBeLessThanOrEqual(states.maxBytes);
  const cold = await coldAgent(settings);
  for (const each of all.filter((_, index) => index % 8 === 0)) {
    await expectAsCold(agent, cold, each);
  }
});
