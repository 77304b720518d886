// Whatever goes wrong in a session, sequences and cells are counted back to zero, and its neighbours never notice.
import { join } from 'node:path';
import type { AgentServer, Session } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { likelyCalls } from '../helpers/likely-text.js';

const BOOLEAN = {
  type: 'object',
  properties: { on: { type: 'boolean' } },
  required: ['on'],
  additionalProperties: false,
};

/** Each fails, or ends before its time, in a way of its own. */
const MISHAPS: Record<string, (agent: AgentServer, session: Session) => Promise<unknown>> = {
  'an abort before the first token': (_, session) => session.send('Hello', { signal: AbortSignal.timeout(1) }),
  'an abort in the reply': async (_, session) => {
    const controller = new AbortController();
    for await (const part of session.stream('Hello', { signal: controller.signal })) {
      controller.abort(part);
    }
  },
  'a break': async (_, session) => {
    for await (const _part of session.stream('Hello')) {
      break;
    }
  },
  'a stream that nobody reads on': (_, session) => session.stream('Hello').next(),
  'a message that does not fit': (_, session) => session.send('word '.repeat(5000)),
  'a message that is none': (_, session) => session.send({ role: 'wizard' } as never),
  'a sampler that finds nothing': (_, session) =>
    session.send('Hello', {
      sampling: {
        logitBias: new Map(Array.from({ length: 576 }, (_unused, token) => [token, Number.NEGATIVE_INFINITY])),
      },
    }),
  'a schema that is none': (_, session) =>
    session.send('Hello', { responseFormat: { type: 'json', schema: { type: 'colour' } } }),
  'a tool that throws': async (agent) => {
    const execute = () => {
      throw new Error('broken');
    };
    const session = await agent.createSession({ tools: [{ name: 'lamp', parameters: BOOLEAN, execute }] });
    await session.send('Light', { toolChoice: 'required', maxSteps: 2, maxTokens: 80 });
    await session.close();
  },
  'a tool that hangs until the session is closed': async (agent) => {
    const session: Session = await agent.createSession({
      tools: [{ name: 'lamp', parameters: BOOLEAN, execute: () => new Promise(() => void session.close()) }],
    });
    await session.send('Light', { toolChoice: 'required', maxTokens: 80 });
  },
  'a fork that is left alone': (_, session) => session.fork(),
  'a completion that is aborted': (agent) => agent.complete('Hello', { signal: AbortSignal.timeout(1) }),
  'a completion that is left': async (agent) => {
    for await (const _part of agent.streamComplete('Hello')) {
      break;
    }
  },
  'a save that is aborted while its conversation is read again': async (_, session) => {
    await session.send('Hello. '.repeat(40), { maxTokens: 4 });
    const directory = await temporaryDirectory();
    await session.save(join(directory, 'session.json'), { state: true, signal: AbortSignal.timeout(1) });
  },
  'tool calls that fill the context': async (agent) => {
    const tools = [{ name: 'look', execute: () => 'much '.repeat(400) }];
    const session = await agent.createSession({ tools, compaction: { maxSummaryTokens: 8 } });
    try {
      const sampling = await likelyCalls();
      await session.send('Look', { sampling, maxParallelTools: 1, maxSteps: 12, maxTokens: 60 });
    } finally {
      await session.close();
    }
  },
  'a summary that is aborted': async (_, session) => {
    await session.send('Hello', { maxTokens: 4 });
    await session.compact({ preserveRecent: 0, signal: AbortSignal.timeout(1) });
  },
};

describe.each(['dense', 'sliding-window', 'recurrent'] as const)('on %s memory', (name) => {
  it.each(Object.keys(MISHAPS))('%s leaves nothing behind', async (title) => {
    const agent = await startAgent({ name, maxResidentTemplates: 0, nSeqMax: 2, contextSize: 2048, ...EXACT });
    const opened: Session[] = [];
    for (let round = 0; round < 3; round++) {
      const session = await agent.createSession();
      opened.push(session);
      const made = await MISHAPS[title]?.(agent, session).catch(() => undefined);
      if (typeof made === 'object' && made !== null && 'close' in made) {
        opened.push(made as Session);
      }
    }
    const neighbour = await agent.createSession();
    expect(await replies(neighbour, ['Hello', 'And now?'], 8)).toEqual(
      await uncachedReplies({ name, contextSize: 2048, ...EXACT }, ['Hello', 'And now?'], 8),
    );
    await Promise.all([...opened, neighbour].map((session) => session.close()));
    expect(agent.health()).toMatchObject(NOTHING_HELD);
  });
});
