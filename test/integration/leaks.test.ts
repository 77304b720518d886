// After any failure in a session, all sequences and cells are released, and other sessions reply as before.
import { join } from 'node:path';
import { type AgentServer, type Session, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { ON } from '../helpers/lamp.js';
import { likelyCalls } from '../helpers/likely-text.js';
import { rounds, variants } from '../helpers/soak.js';

/** Ways in which a session fails or ends early. */
const FAILURES: Record<string, (agent: AgentServer, session: Session) => Promise<unknown>> = {
  'an abort before the first token': (_, session) => session.send('Hello', { signal: AbortSignal.timeout(1) }),
  'an abort during the reply': async (_, session) => {
    const controller = new AbortController();
    for await (const part of session.stream('Hello', { signal: controller.signal })) {
      controller.abort(part);
    }
  },
  'a `break` out of a stream': async (_, session) => {
    for await (const _part of session.stream('Hello')) {
      break;
    }
  },
  'a stream that is not read to its end': (_, session) => session.stream('Hello')[Symbol.asyncIterator]().next(),
  'a message that does not fit': (_, session) => session.send('word '.repeat(5000)),
  'an invalid message': (_, session) => session.send({ role: 'wizard' } as never),
  'a sampler without any token to choose': (_, session) =>
    session.send('Hello', {
      sampling: {
        logitBias: new Map(Array.from({ length: 576 }, (_unused, token) => [token, Number.NEGATIVE_INFINITY])),
      },
    }),
  'an invalid schema': (_, session) =>
    session.send('Hello', { responseFormat: { type: 'json', schema: { type: 'color' } } }),
  'a tool that throws': async (agent) => {
    const execute = () => {
      throw new Error('broken');
    };
    const session = await agent.createSession({ tools: [{ name: 'lamp', parameters: ON, execute }] });
    await session.send('Light', { toolChoice: 'required', maxSteps: 2, maxTokens: 80 });
    await session.close();
  },
  'a tool that hangs until the session is closed': async (agent) => {
    const session: Session = await agent.createSession({
      tools: [{ name: 'lamp', parameters: ON, execute: () => new Promise(() => void session.close()) }],
    });
    await session.send('Light', { toolChoice: 'required', maxTokens: 80 });
  },
  'a fork that is never used': (_, session) => session.fork(),
  'a completion that is aborted': (agent) => agent.complete('Hello', { signal: AbortSignal.timeout(1) }),
  'a completion that is not read to its end': async (agent) => {
    for await (const _part of agent.streamComplete('Hello')) {
      break;
    }
  },
  'a save that is aborted while its conversation is prefilled': async (_, session) => {
    await session.send('Hello. '.repeat(40), { maxTokens: 4 });
    const directory = await temporaryDirectory();
    await session.save(join(directory, 'session.json'), { state: true, signal: AbortSignal.timeout(1) });
  },
  'tool calls that fill the context': async (agent) => {
    const tools = [{ name: 'look', execute: () => 'much '.repeat(400) }];
    const session = await agent.createSession({ tools, compaction: { maxSummaryTokens: 8 } });
    try {
      const sampling = await likelyCalls();
      await session.send('Look', { sampling, maxParallelTools: 1, maxSteps: 5, maxTokens: 60 });
    } finally {
      await session.close();
    }
  },
  'a summary that is aborted': async (_, session) => {
    await session.send('Hello', { maxTokens: 4 });
    await session.compact({ preserveRecent: 0, signal: AbortSignal.timeout(1) });
  },
};

const MODELS = ['dense', 'sliding-window', 'recurrent'] as const;

describe.each(MODELS)('with the %s model', (name) => {
  const turns = ['Hello', 'And now?'];
  let repliesAlone: Promise<string[]> | undefined;
  // In `npm test`, each failure happens with one of the models.
  const isTested = (_: string, index: number) => MODELS[index % MODELS.length] === name;

  it.each(variants(Object.keys(FAILURES), isTested))('%s releases all sequences and cells', async (title) => {
    const agent = await startAgent({ name, maxResidentTemplates: 0, nSeqMax: 3, contextSize: 2048, ...EXACT });
    repliesAlone ??= uncachedReplies({ name, contextSize: 2048, ...EXACT }, turns, 8);
    const expected = await repliesAlone;
    const neighbor = async () => {
      const session = await agent.createSession();
      expect(await replies(session, turns, 8)).toEqual(expected);
      await session.close();
    };
    const opened: Session[] = [];
    for (let round = 0; round < rounds(1, 3); round++) {
      const session = await agent.createSession();
      opened.push(session);
      const [result] = await Promise.all([FAILURES[title]?.(agent, session).catch(() => undefined), neighbor()]);
      if (typeof result === 'object' && result !== null && 'close' in result) {
        opened.push(result as Session);
      }
    }
    await neighbor();
    await Promise.all(opened.map((session) => session.close()));
    expect(agent.health()).toMatchObject(NOTHING_HELD);
  });
});

it('an abort at any stage of a turn undoes the turn and releases all sequences and cells', async () => {
  const agent = await startAgent({ maxResidentTemplates: 0, contextSize: 512, ...EXACT });
  const sampling = await likelyCalls();
  let onMoment: (stage: string) => void = () => {};
  for (const channel of ['prefill', 'decode', 'tool-call'] as const) {
    onTestFinished(subscribeDiagnostics(channel, () => onMoment(channel)));
  }
  /**
   * Runs a turn and aborts it at its event number `moment`. Returns the stage of each event, and the outcome of the
   * turn.
   */
  const run = async (moment: number): Promise<{ stages: string[]; outcome: string }> => {
    const controller = new AbortController();
    const stages: string[] = [];
    onMoment = (stage) => {
      if (stages.push(stage) === moment + 1) {
        controller.abort();
      }
    };
    const step = (stage: string) => {
      onMoment(stage);
      return new Promise(setImmediate);
    };
    const session = await agent.createSession({
      messages: [
        { role: 'user', content: 'The chain is oiled. '.repeat(12) },
        { role: 'assistant', content: 'Good.' },
      ],
      tools: [{ name: 'look', execute: () => step('tool').then(() => 'The brake is new.') }],
      onToolCall: () => step('hook').then(() => true),
      compaction: { threshold: 0.4, maxSummaryTokens: 4, prompt: 'Summarize.' },
    });
    stages.length = 0;
    const options = { sampling, maxParallelTools: 1, maxSteps: 2, maxTokens: 60, signal: controller.signal };
    const reading = (async () => {
      for await (const { type } of session.stream('Look', options)) {
        await step(`part ${type}`);
      }
    })();
    const outcome = await reading.then(
      () => 'done',
      ({ code }: { code: string }) => code,
    );
    onMoment = () => {};
    expect(session.messages.length === 2).toBe(outcome !== 'done');
    expect((await session.send('Hello', { toolChoice: 'none', maxTokens: 2 })).usage.outputTokens).toBe(2);
    await session.close();
    expect(agent.health()).toMatchObject(NOTHING_HELD);
    return { stages, outcome };
  };
  const whole = await run(-1);
  expect(whole.outcome).toBe('done');
  const tried = new Set<string>();
  for (const [moment, stage] of whole.stages.entries()) {
    const change = `${whole.stages[moment - 1]}, ${stage}`;
    if (!tried.has(change)) {
      const { outcome } = await run(moment);
      const isComplete = moment > whole.stages.lastIndexOf('tool'); // then the turn may end before the abort
      expect({ change, outcome }).toEqual({ change, outcome: isComplete ? expect.any(String) : 'ABORTED' });
    }
    tried.add(change);
  }
  const stages = [
    'prefill',
    'decode',
    'hook',
    'tool',
    'tool-call',
    'part compaction',
    'part tool-call',
    'part tool-result',
  ];
  expect(whole.stages).toEqual(expect.arrayContaining(stages));
});
