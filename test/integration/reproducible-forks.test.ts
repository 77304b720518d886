// With `reproducible`, a fork or restored session replies with the same bits as its original, even after it lost its KV
// cells and its saved state.
import { join } from 'node:path';
import { type AgentServer, type Session, subscribeDiagnostics, type Tool } from 'llama-headstart';
import { describe, expect, it, vi } from 'vitest';
import { type AgentSettings, agentOptions, startAgent, temporaryDirectory } from '../helpers/agents.js';
import type { MicroModelName } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { type ExactReply, exactReply, withoutRecording } from '../helpers/reproducible.js';
import { variants } from '../helpers/soak.js';

const MEMORIES = ['dense', 'dense-quantised', 'sliding-window', 'recurrent', 'hybrid'] as const;
const FIRST = 'Hello there, how much is a new chain for an old bicycle? '.repeat(3);
const NEXT = ['And now?', 'Thank you'];

const settings = (more: AgentSettings): AgentSettings => ({
  reproducible: true,
  contextSize: 768,
  nSeqMax: 1, // each turn takes the sequence of the session that ran before
  batchSize: 128,
  ...more,
});

const say = (session: Session, message: string, signal?: AbortSignal): Promise<ExactReply> =>
  exactReply(() =>
    session.send(message, { maxTokens: 12, sampling: { temperature: 0.9, seed: 1 }, ...(signal && { signal }) }),
  );

async function sayAll(session: Session, messages = NEXT): Promise<ExactReply[]> {
  const all: ExactReply[] = [];
  for (const message of messages) {
    all.push(await say(session, message));
  }
  return all;
}

/** Gives the only sequence to another session. */
async function takeSequence(agent: AgentServer): Promise<void> {
  const other = await agent.createSession({ systemPrompt: 'You are somebody else.' });
  await other.send('Hi', { maxTokens: 2 });
  await other.close();
}

/** The replies of {@link alone} without tools, by model. */
const repliesAlone = new Map<MicroModelName, Promise<ExactReply[]>>();

function expectedOf(name: MicroModelName): Promise<ExactReply[]> {
  const expected = repliesAlone.get(name) ?? alone({ name });
  repliesAlone.set(name, expected);
  return expected;
}

/** Returns the replies of a session that runs alone, without the reply of its first turn. */
async function alone(more: AgentSettings, tools: readonly Tool[] = []): Promise<ExactReply[]> {
  const session = await (await startAgent(settings(more))).createSession({
    templateCache: false,
    toolChoice: 'none',
    tools,
  });
  await say(session, FIRST);
  return sayAll(session);
}

/** In `npm test`, these models run with saved states, and the other models run without. */
const WITH_SAVED_STATES: readonly MicroModelName[] = ['dense-quantised', 'hybrid'];

describe.each(variants(MEMORIES, (name) => name !== 'dense'))('in reproducible mode, with the %s model,', (name) => {
  const settingsOfStates = [
    ['with saved states', {}],
    ['with no memory for saved states', { maxMemoryBytes: 0 }],
  ] as const;
  const isTested = (_: unknown, index: number) => WITH_SAVED_STATES.includes(name) === (index === 0);
  describe.each(variants(settingsOfStates, isTested))('%s,', (_, memory) => {
    it('a fork replies as its session would, even if the turns of the two alternate', async () => {
      const expected = await expectedOf(name);
      const agent = await startAgent(settings({ name, ...memory }));
      const session = await agent.createSession();
      await say(session, FIRST);
      const fork = await session.fork();
      await takeSequence(agent);
      const later = await session.fork(); // the session has lost its sequence
      const all: ExactReply[][] = [[], [], []];
      for (const message of NEXT) {
        for (const [index, conversation] of [fork, session, later].entries()) {
          all[index]?.push(await say(conversation, message));
        }
      }
      expect(all).toEqual([expected, expected, expected]);
    });

    it('forks of an unused fork and of a new session reply as the original session', async () => {
      const expected = await expectedOf(name);
      const agent = await startAgent(settings({ name, ...memory }));
      const session = await agent.createSession();
      const early = await session.fork();
      await say(session, FIRST);
      const second = await (await session.fork()).fork();
      expect(await sayAll(second)).toEqual(expected);
      await say(early, FIRST);
      expect(await sayAll(early)).toEqual(expected);
    });

    it.each([true, false])('a restored session replies as the original session (state saved: %s)', async (state) => {
      const expected = await expectedOf(name);
      const path = join(await temporaryDirectory(), 'session.json');
      const first = await startAgent(settings({ name, ...memory }));
      const session = await first.createSession();
      await say(session, FIRST);
      if (!state) {
        await takeSequence(first);
      }
      await session.save(path, { state });
      await first.close();
      const agent = await startAgent(settings({ name, ...memory }));
      const restored = await agent.restoreSession(path);
      const fork = await restored.fork();
      const received: ExactReply[] = [];
      for (const message of NEXT) {
        await takeSequence(agent);
        received.push(await say(restored, message));
      }
      expect(received).toEqual(expected);
      expect(await sayAll(fork)).toEqual(expected);
    });

    it('a turn that is aborted or not read to its end changes no later reply', async () => {
      const expected = await expectedOf(name);
      const agent = await startAgent(settings({ name, ...memory }));
      const session = await agent.createSession();
      await say(session, FIRST);
      for (const decodes of [1, 2, 5, 9]) {
        await takeSequence(agent);
        const controller = new AbortController();
        let left = decodes;
        const unsubscribe = subscribeDiagnostics('decode', () => --left === 0 && controller.abort());
        await expect(say(session, 'Never mind', controller.signal)).rejects.toMatchObject({ code: 'ABORTED' });
        unsubscribe();
      }
      for await (const part of session.stream('Nor this')) {
        if (part.type === 'text-delta') {
          break;
        }
      }
      expect(await sayAll(session)).toEqual(expected);
    });

    it('a turn that lost its sequence during its tool call continues as if it had kept the sequence', async () => {
      const turn = async (more: AgentSettings, inTool: (agent: AgentServer) => Promise<void>) => {
        const agent = await startAgent(settings({ name, ...more, contextSize: 2048 }));
        const ran: string[] = [];
        const execute = async () => {
          await inTool(agent);
          ran.push('a');
        };
        const session = await agent.createSession({ tools: [{ name: 'a', execute }], toolChoice: 'none' });
        await say(session, FIRST);
        const calling = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 60 } as const;
        const sampling = { temperature: 0.9, seed: 1 };
        const reply = await exactReply(() => session.send('Call it', { ...calling, sampling }));
        expect(ran).toEqual(['a']);
        return [reply, ...(await sayAll(session))];
      };
      const expected = await turn({}, async () => undefined);
      expect(await turn(memory, (agent) => withoutRecording(() => takeSequence(agent)))).toEqual(expected);
    });

    it('a turn that is aborted while its tool runs changes no later reply', async () => {
      const controller = new AbortController();
      const tools: Tool[] = [{ name: 'a', execute: () => controller.abort() }];
      const expected = await alone({ name }, tools);
      const agent = await startAgent(settings({ name, ...memory }));
      const session = await agent.createSession({ tools, toolChoice: 'none' });
      await say(session, FIRST);
      const calling = {
        toolChoice: 'required',
        maxParallelTools: 1,
        maxTokens: 200,
        signal: controller.signal,
      } as const;
      await expect(session.send('Call it', calling)).rejects.toMatchObject({ code: 'ABORTED' });
      expect(await sayAll(session)).toEqual(expected);
    });
  });

  if (!variants(MEMORIES, (each) => each === 'dense-quantised' || each === 'hybrid').includes(name)) {
    return;
  }

  it('a session that is restored in another process replies as the original session', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'session.json');
    const options = settings({ name, cacheDir: directory });
    const agent = await startAgent(options);
    const session = await agent.createSession();
    await say(session, FIRST);
    await session.save(path, { state: true });
    const likely = async (message: string) => {
      const { text, logProbabilities } = await session.send(message, { maxTokens: 12, logProbabilities: 100 });
      return { text, logProbabilities };
    };
    const expected = [await likely(NEXT[0] as string), await likely(NEXT[1] as string)];
    await agent.close();
    const other = await inOtherProcess('restored', {
      options: agentOptions(options),
      path,
      messages: NEXT,
      settings: { maxTokens: 12, logProbabilities: 100 },
    });
    expect(other).toEqual(JSON.parse(JSON.stringify(expected)));
  });
});

it.each(['dense-quantised', 'sliding-window', 'recurrent'] as const)(
  'in reproducible mode, with the %s model, a stream has the same bits even if it pauses and loses its sequence',
  async (name) => {
    const [first, second] = NEXT as [string, string];
    // More tokens than a stream buffers.
    const long = { maxTokens: 100, sampling: { temperature: 0.9, seed: 1, ignoreEos: true } };
    const uncached = await (await startAgent(settings({ name }))).createSession({ templateCache: false });
    await say(uncached, FIRST);
    const expected = [await exactReply(() => uncached.send(first, long)), await say(uncached, second)];

    const agent = await startAgent(settings({ name, maxMemoryBytes: 0 }));
    const session = await agent.createSession();
    await say(session, FIRST);
    const streamed = await exactReply(async () => {
      let text = '';
      for await (const part of session.stream(first, long)) {
        if (text === '') {
          await vi.waitUntil(() => agent.health().activeSessions === 0, { timeout: 60_000 }); // the turn is paused
          await withoutRecording(() => takeSequence(agent));
        }
        text += part.type === 'text-delta' ? part.text : '';
      }
      return { text };
    });
    expect([streamed, await say(session, second)]).toEqual(expected);
  },
);
