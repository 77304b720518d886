// All sessions share each decode; where cells or sequences are short, they wait for one another and nobody is harmed.
import * as diagnostics from 'node:diagnostics_channel';
import {
  type DecodeRequest,
  Engine,
  HeadstartError,
  type Reply,
  subscribeDiagnostics,
  TEMPLATE_CACHE_CHANNEL,
  type TemplateCacheEvent,
} from 'llama-headstart';
import { type ContextOptions, Model, type Sampler } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { CLEAN, runChild } from '../helpers/children.js';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { openLab } from '../helpers/open-lab.js';
import { numberedPrompt } from '../helpers/prompts.js';

interface Opened {
  model: Model;
  engine: Engine;
  /** A sequence of somebody who is busy until `release`. */
  lease(): Promise<number>;
}

async function open(options: ContextOptions & { name?: Parameters<typeof microModel>[0] } = {}): Promise<Opened> {
  const { name = 'dense', ...context } = options;
  const model = await Model.load({ path: microModel(name) });
  const engine = new Engine(
    await model.createContext({ kvCells: 2048, batchSize: 128, maxSequences: 8, ...EXACT, ...context }),
  );
  onTestFinished(async () => {
    await engine.close();
    await model.close();
  });
  return { model, engine, lease: () => engine.sessions.lease({ busy: true, onEvicted: () => undefined }) };
}

/** Greedy tokens of a sequence that reads `prompt` and goes on for `steps`. */
async function generate(engine: Engine, sequence: number, prompt: Int32Array, steps: number): Promise<number[]> {
  const tokens: number[] = [];
  let { token } = await engine.decode({ sequence, tokens: prompt, from: 0 });
  for (let step = 0; step < steps; step++) {
    tokens.push(token);
    ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token), from: prompt.length + step }));
  }
  return tokens;
}

/** Resolves when there were no cells for a decode or a state, and who asked for it has had its turn. */
function refusal({ context }: Engine, method: 'decode' | 'restoreSequence'): Promise<void> {
  return new Promise((resolve) => {
    const call = context[method].bind(context) as (...args: unknown[]) => Promise<never>;
    context[method] = (...args: unknown[]) => {
      const calling = call(...args);
      calling.catch(({ code }) => code === 'NO_KV_SLOT' && setImmediate(resolve));
      return calling;
    };
  });
}

/** Nothing is held, whoever counts: one sequence can take every cell there is. */
async function requireAllFree(engine: Engine): Promise<void> {
  expect(engine.status()).toMatchObject({ queueLength: 0, heldSequences: 0, kvCells: { used: 0 } });
  const { kvCellsPerSequence } = engine.context.info;
  const sequence = await engine.sessions.lease({ busy: true, onEvicted: () => undefined });
  await engine.prefill(sequence, someTokens(kvCellsPerSequence, 99), 0);
  engine.sessions.release(sequence);
}

describe('sequences that decode at the same time', () => {
  it('share decodes, and say what each says alone', async () => {
    const prompts = Array.from({ length: 8 }, (_, index) => someTokens(20 + 60 * index, index + 1));
    const expected: number[][] = [];
    for (const prompt of prompts) {
      const { engine } = await open();
      expected.push(await generate(engine, 0, prompt, 20));
    }
    const { engine } = await open();
    let most = 0;
    onTestFinished(
      subscribeDiagnostics('decode', ({ sequences }) => {
        most = Math.max(most, sequences);
      }),
    );
    const actual = await Promise.all(prompts.map((prompt, sequence) => generate(engine, sequence, prompt, 20)));
    expect(actual).toEqual(expected);
    expect(most).toBe(8);
    const tokens = prompts.reduce((total, { length }) => total + length, 0);
    expect(engine.context.counters().decodes).toBeLessThan(20 + tokens / 32 + 20);
  });

  it('keep flowing while a long prompt is read', async () => {
    const { engine } = await open();
    let steps = 0;
    const long = engine.prefill(0, someTokens(1500, 1), 0);
    const ended = long.then(() => true);
    let { token } = await engine.decode({ sequence: 1, tokens: someTokens(3, 2), from: 0 });
    while (!(await Promise.race([ended, Promise.resolve(false)])) && steps < 400) {
      ({ token } = await engine.decode({ sequence: 1, tokens: Int32Array.of(token), from: 3 + steps++ }));
    }
    expect(steps).toBeGreaterThanOrEqual(10); // one for each piece of the prompt
    await long;
  });

  it('are as many as 256 in one decode', async () => {
    const { engine } = await open({ maxSequences: 256, batchSize: 512 });
    const sequences = Array.from({ length: 256 }, (_, sequence) => sequence);
    await Promise.all(sequences.map((sequence) => engine.prefill(sequence, someTokens(3, sequence), 0)));
    let most = 0;
    onTestFinished(
      subscribeDiagnostics('decode', ({ sequences }) => {
        most = Math.max(most, sequences);
      }),
    );
    await Promise.all(
      sequences.map((sequence) => engine.decode({ sequence, tokens: Int32Array.of(20 + sequence), from: 3 })),
    );
    expect(most).toBe(256);
  });

  it('let a short prompt pass beside long ones, however many were there before', async () => {
    const { engine } = await open({ kvCells: 4096 });
    const long = [0, 1, 2, 3, 4].map((sequence) => engine.prefill(sequence, someTokens(500, sequence + 1), 0));
    let stream = await engine.decode({ sequence: 6, tokens: someTokens(3, 7), from: 0 });
    let isRead = false;
    let decodes = 0;
    onTestFinished(
      subscribeDiagnostics('decode', () => {
        decodes += isRead ? 0 : 1;
      }),
    );
    const short = engine.prefill(5, someTokens(30, 6), 0).then(() => {
      isRead = true;
    });
    for (let from = 3; !isRead; from++) {
      stream = await engine.decode({ sequence: 6, tokens: Int32Array.of(stream.token), from });
    }
    expect(decodes).toBeLessThanOrEqual(5); // 32 tokens of each, two prompts a decode, beside the stream
    await Promise.all([short, ...long]);
  });

  it('are not harmed by a request of another that cannot be decoded', async () => {
    const { engine } = await open();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    const [good, wrongPosition, wrongToken, wrongSequence] = await Promise.allSettled([
      generate(engine, 1, prompt, 10),
      engine.decode({ sequence: 2, tokens: Int32Array.of(5), from: 7 }),
      engine.decode({ sequence: 3, tokens: Int32Array.of(-1), from: 0 }),
      engine.decode({ sequence: 99, tokens: Int32Array.of(1), from: 0 }),
    ]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(wrongPosition).toMatchObject({ reason: { code: 'POSITION_INVALID' } });
    expect(wrongToken).toMatchObject({ reason: { code: 'TOKEN_OUT_OF_RANGE' } });
    expect(wrongSequence).toMatchObject({ reason: { code: 'SEQUENCE_OUT_OF_RANGE' } });
  });

  it.each<[string, Partial<DecodeRequest>, string]>([
    ['nothing as tokens', { tokens: undefined as never }, 'INVALID_ARGUMENT'],
    ['no tokens', { tokens: new Int32Array() }, 'INVALID_ARGUMENT'],
    ['tokens that are a plain array', { tokens: [5] as never }, 'INVALID_ARGUMENT'],
    ['tokens of another type', { tokens: new Float32Array([5]) as never }, 'INVALID_ARGUMENT'],
    ['a position below 0', { from: -1 }, 'POSITION_INVALID'],
    ['half a position', { from: 0.5 }, 'POSITION_INVALID'],
    ['a position that 32 bits make 0', { from: 2 ** 32 }, 'POSITION_INVALID'],
    ['no position', { from: undefined as never }, 'POSITION_INVALID'],
    ['half a sequence', { sequence: 1.5 }, 'SEQUENCE_OUT_OF_RANGE'],
    ['a sequence that 32 bits make another', { sequence: 2 ** 32 + 1 }, 'SEQUENCE_OUT_OF_RANGE'],
    ['no sequence', { sequence: undefined as never }, 'SEQUENCE_OUT_OF_RANGE'],
    ['a signal that is none', { signal: {} as never }, 'INVALID_ARGUMENT'],
    ['a sampler that is none', { sampler: {} as never }, 'INVALID_ARGUMENT'],
    ['more probabilities than tokens', { logProbabilities: 1e6 }, 'INVALID_ARGUMENT'],
    ['fewer than no probabilities', { logProbabilities: -1 }, 'INVALID_ARGUMENT'],
    [
      'an `onDecoded` that throws',
      {
        onDecoded: () => {
          throw new HeadstartError('INTERNAL', 'mine');
        },
      },
      'INTERNAL',
    ],
  ])('are not harmed by a request of another with %s, which is refused', async (_, wrong, code) => {
    const { engine } = await open();
    const prompts = [someTokens(40, 1), someTokens(40, 4)] as const;
    const expected = [await generate(engine, 0, prompts[0], 10), await generate(engine, 3, prompts[1], 10)];
    const beside = [generate(engine, 1, prompts[0], 10), generate(engine, 4, prompts[1], 10)];
    for (let turn = 0; turn < 3; turn++) {
      await expect(
        engine.decode({ sequence: 2, tokens: Int32Array.of(5), from: turn, ...wrong }),
      ).rejects.toMatchObject({
        code,
      });
    }
    expect(await Promise.all(beside)).toEqual(expected);
    expect(engine.status()).toMatchObject({ queueLength: 0 });
  });

  it('are not harmed by the sampler of another that fails', async () => {
    const { model, engine } = await open();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    // Its grammar wants one letter, and the bias leaves another.
    const [only] = await model.tokenize('a');
    const ids = Array.from({ length: model.info.vocabulary.size }, (_, id) => id);
    const logitBias = new Map(ids.filter((id) => id !== only).map((id) => [id, Number.NEGATIVE_INFINITY]));
    const sampler: Sampler = await model.createSampler({ grammar: 'root ::= "b"', logitBias });
    const decoded: number[] = [];
    const failing = engine.decode({
      sequence: 2,
      tokens: someTokens(4, 3),
      from: 0,
      sampler,
      onDecoded: (tokens) => decoded.push(...tokens),
    });
    const [good, failed] = await Promise.allSettled([generate(engine, 1, prompt, 10), failing]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'GRAMMAR_DEAD_END' } });
    expect(decoded).toEqual([...someTokens(4, 3)]); // they are in its sequence
  });

  it('are not harmed by the abort of another', async () => {
    const { engine } = await open();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    const controller = new AbortController();
    const told: number[] = [];
    const aborted = engine.decode({
      sequence: 2,
      tokens: someTokens(1000, 3),
      from: 0,
      signal: controller.signal,
      onDecoded: (tokens) => {
        told.push(...tokens);
        controller.abort(new Error('enough'));
      },
    });
    const [good, failed] = await Promise.allSettled([generate(engine, 1, prompt, 10), aborted]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } });
    const { last } = await engine.context.positionRange(2);
    expect(last + 1).toBe(told.length);
  });
});

describe('where KV cells are short', () => {
  it('idle state goes first, then who came last waits, and who cannot fit at all fails alone', async () => {
    const { engine } = await open({ kvCells: 512 });
    const events: string[] = [];
    const lease = async (name: string) => {
      const holder = { busy: true, onEvicted: () => events.push(`${name} evicted`) };
      return { holder, sequence: await engine.sessions.lease(holder) };
    };
    const fill = async (name: string, count: number) => {
      const { holder, sequence } = await lease(name);
      await engine.prefill(sequence, someTokens(count, sequence + 1), 0);
      events.push(`${name} filled`);
      return { holder, sequence };
    };
    const idle = await fill('idle', 250);
    idle.holder.busy = false;
    const running = await fill('running', 200);
    await fill('second', 200); // in the cells of the idle one
    const third = fill('third', 300);
    const hopeless = fill('hopeless', 600);
    await expect(hopeless).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    // The third waits, while the first goes on.
    const prompt = 200;
    for (let step = 0; step < 20; step++) {
      await engine.decode({ sequence: running.sequence, tokens: Int32Array.of(20 + step), from: prompt + step });
    }
    events.push('running is through');
    engine.sessions.release(running.sequence);
    await third;
    expect(events).toEqual([
      'idle filled',
      'running filled',
      'idle evicted',
      'second filled',
      'running is through',
      'third filled',
    ]);
  });

  it('idle templates that nobody shares go first, then idle sessions, then shared templates', async () => {
    const lab = await openLab({ kvCells: 1024, residents: 2, sessions: 3 });
    const { engine, prefixCache } = lab;
    const events: string[] = [];
    const [shared, lone] = [someTokens(200, 1), someTokens(150, 2)];
    const sequence = await engine.sessions.lease({ busy: false, onEvicted: () => events.push('idle session') });
    const { key } = await prefixCache.start(sequence, shared);
    await engine.prefill(sequence, someTokens(150, 3), 200);
    await lab.start(lone); // used last
    const listen = (event: unknown) => {
      const { type, key: of } = event as TemplateCacheEvent & { key: string };
      if (type === 'evict') {
        events.push(of === key ? 'shared template' : 'lone template');
      }
    };
    diagnostics.subscribe(TEMPLATE_CACHE_CHANNEL, listen);
    onTestFinished(() => void diagnostics.unsubscribe(TEMPLATE_CACHE_CHANNEL, listen));
    const own = await engine.sessions.lease({ busy: true, onEvicted: () => undefined });
    await engine.prefill(own, someTokens(1024, 4), 0);
    expect(events).toEqual(['lone template', 'idle session', 'shared template']);
  });

  it('the last to come gives its cells back, and begins again when the first is through', async () => {
    const { engine, lease } = await open({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const done: string[] = [];
    const run = async (name: string, sequence: number) => {
      await engine.prefill(sequence, someTokens(400, sequence + 1), 0);
      done.push(name);
      engine.sessions.release(sequence);
    };
    await Promise.all([run('first', first), run('second', second)]);
    expect(done).toEqual(['first', 'second']);
    expect(engine.status()).toMatchObject({ queueLength: 0, kvCells: { used: 0 } });
  });

  it('who has told what it holds is asked to begin again', async () => {
    const { engine, lease } = await open({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const filling = engine.prefill(first, someTokens(400, 1), 0);
    const told: number[] = [];
    const other = engine.decode({
      sequence: second,
      tokens: someTokens(300, 2),
      from: 0,
      onDecoded: (tokens) => told.push(...tokens),
    });
    other.catch(() => undefined);
    await filling;
    engine.sessions.release(first);
    await expect(other).rejects.toMatchObject({ code: 'PREEMPTED', sequences: [second] });
    expect((await engine.context.positionRange(second)).last).toBe(-1);
  });

  it('what cannot fit at all is refused, though nobody else is there', async () => {
    const { engine } = await open({ kvCells: 256 });
    await expect(engine.prefill(0, someTokens(300, 1), 0)).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
  });

  it.each([
    ['in a unified cache', 'unified'],
    ['in split streams', 'split'],
  ] as const)('who cannot fit fails with CONTEXT_FULL, and never those beside it, %s', async (_, kvLayout) => {
    const { engine, lease } = await open({ kvCells: 1024, maxSequences: 2, kvLayout });
    const [first, second] = [await lease(), await lease()];
    const expected = await generate(engine, second, someTokens(20, 2), 12);
    await engine.context.removeSequence(second);
    const hopeless = engine.prefill(first, someTokens(1100, 1), 0);
    const beside = generate(engine, second, someTokens(20, 2), 12);
    await expect(hopeless).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    expect(await beside).toEqual(expected);
  });

  it('sessions wait for a sequence in the order in which they came', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const sessions = await Promise.all(Array.from({ length: 5 }, () => agent.createSession()));
    const done: number[] = [];
    const send = async (number: number) => {
      await sessions[number]?.send('Hello', { maxTokens: 4 });
      done.push(number);
    };
    await Promise.all([4, 3, 0, 2, 1].map(send)); // the last one opened still holds the sequence
    expect(done).toEqual([4, 3, 0, 2, 1]);
  });

  it.each([
    ['resident templates', { nSeqMax: 252, maxResidentTemplates: 4 }],
    ['split streams', { nSeqMax: 256, kvLayout: 'split' }],
  ] as const)('up to 256 sequences decode together, with %s', async (_, sequences) => {
    const agent = await startAgent({
      ...sequences,
      contextSize: 256,
      batchSize: 512,
      systemPrompt: 'You are brief.',
      kvCells: 65536,
    });
    let most = 0;
    onTestFinished(
      subscribeDiagnostics('decode', (event) => {
        most = Math.max(most, event.sequences);
      }),
    );
    const sessions = await Promise.all(Array.from({ length: 260 }, () => agent.createSession()));
    const all = await Promise.all(sessions.map((session) => session.send('Hello', { maxTokens: 40 })));
    expect(all.every(({ usage }) => usage.outputTokens > 0)).toBe(true);
    expect(most).toBeGreaterThan(32);
  });

  it.each([
    ['read for the first time', 1],
    ['put back', 0],
  ])(
    'a session begins, though its template, %s, needs more cells than any that come after it leave',
    async (_, count) => {
      const settings = { ...EXACT, kvCells: 1024, nSeqMax: 7, maxResidentTemplates: count, batchSize: 128 };
      const agent = await startAgent({ ...settings, systemPrompt: 'You are terse.' });
      const systemPrompt = [1, 2, 3, 4, 5].map(numberedPrompt).join('\n');
      if (count === 0) {
        await (await agent.createSession({ systemPrompt })).close(); // it is in memory now
      }
      let begun = false;
      let turns = 0;
      const comeAndGo = async (number: number) => {
        while (!begun && turns < 60) {
          const session = await agent.createSession();
          await session.send('Hello, '.repeat(20 + number), { maxTokens: 60 });
          await session.close();
          turns++;
        }
      };
      const others = [1, 2, 3, 4, 5, 6].map(comeAndGo);
      while (turns < 12) {
        await new Promise(setImmediate); // until they have all cells
      }
      const { report } = await agent.createSession({ systemPrompt });
      begun = true;
      expect(report.source).toBe(count === 0 ? 'memory' : 'prefill');
      expect(turns).toBeLessThan(36); // those that began before it, and a few that slipped in
      await Promise.all(others);
    },
  );

  it('hundreds of sessions in the cells of two all finish', async () => {
    const agent = await startAgent({ nSeqMax: 252, contextSize: 256, batchSize: 512, systemPrompt: 'You are brief.' });
    const sessions = await Promise.all(Array.from({ length: 260 }, () => agent.createSession()));
    const all = await Promise.all(sessions.map((session) => session.send('Hello', { maxTokens: 12 })));
    expect(all.every(({ usage }) => usage.outputTokens > 0)).toBe(true);
    expect(agent.health()).toMatchObject({ queueLength: 0, activeSessions: 0 });
  });

  it('evicted sessions come back from saved states within `maxSavedBytes`, where those are cheaper, and lose them by age', async () => {
    const first = 'Hello. '.repeat(60);
    const run = async (maxSavedBytes: number) => {
      const agent = await startAgent({ nSeqMax: 1, maxSavedBytes, contextSize: 2048, kvCells: 8192, ...EXACT });
      const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
      const texts: string[] = [];
      for (const session of sessions) {
        texts.push(...(await replies(session, [first], 8)));
      }
      const { savedBytes } = agent.health();
      const cached: number[] = [];
      for (const session of sessions) {
        const { text, usage } = await session.send('And now?', { maxTokens: 8 });
        texts.push(text);
        cached.push(usage.cachedInputTokens - session.report.templateTokens);
      }
      return { texts, savedBytes, cached };
    };
    const plenty = await run(256 * 1024 ** 2);
    const none = await run(0);
    expect(none).toMatchObject({ savedBytes: 0, cached: [0, 0, 0] });
    expect(plenty.savedBytes).toBeGreaterThan(0);
    expect(plenty.cached[0]).toBeGreaterThan(60);
    expect(plenty.texts).toEqual(none.texts);
    const room = Math.floor(plenty.savedBytes * 0.75); // of two states for one
    const one = await run(room);
    expect(one.savedBytes).toBeGreaterThan(0);
    expect(one.savedBytes).toBeLessThanOrEqual(room);
    expect(one.cached[0]).toBe(0); // the older of the two
    expect(one.texts).toEqual(none.texts);
  });

  it('a thousand sessions that nobody closes, and streams that nobody reads on, give all back once they are collected', async () => {
    const { stdout, ...rest } = await runChild('integration/children/dropped-sessions.mjs', [microModel('dense')], {
      nodeArgs: ['--expose-gc'],
    });
    expect({ ...rest, stdout: '' }).toEqual(CLEAN);
    const { streams, ...held } = JSON.parse(stdout);
    expect(held).toEqual({ openSessions: 0, heldSequences: 0, used: 0, savedBytes: 0, queueLength: 0 });
    expect(streams).toMatchObject({ dropped: ['text-delta', 'text-delta'], lorasAreSet: true, next: 'length' });
    expect(streams.ends).toContain('The stream was left before its end');
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'sessions with the %s model all finish, with little memory for what they lose',
    async (name) => {
      const agent = await startAgent({
        name,
        contextSize: 512,
        batchSize: 128,
        maxSavedBytes: 0,
        maxMemoryBytes: 0,
        cacheDir: await temporaryDirectory(),
      });
      const sessions = await Promise.all(
        Array.from({ length: 32 }, (_, number) => agent.createSession({ systemPrompt: numberedPrompt(number % 3) })),
      );
      const texts = await Promise.all(sessions.map((session) => replies(session, ['Hello', 'Go on'], 10)));
      expect(texts.every((each) => each.length === 2)).toBe(true);
      await Promise.all(sessions.map((session) => session.close()));
      await agent.templateCache.clear();
      expect(agent.health()).toMatchObject({ ...NOTHING_HELD, residentTemplates: 0, savedBytes: 0 });
    },
  );

  it('a thousand sessions that nobody closes hold no more than their sequences, and harm nobody', async () => {
    const agent = await startAgent({ nSeqMax: 4 });
    const kept = await agent.createSession();
    const [expected] = await replies(kept, ['Hello'], 8);
    for (let number = 0; number < 1000; number++) {
      await agent.createSession();
    }
    const { heldSequences, kvCells, queueLength } = agent.health();
    expect(queueLength).toBe(0);
    expect(heldSequences).toBeLessThanOrEqual(4); // fewer where the collector has found some of them by now
    expect(kvCells.used).toBeLessThan(2 * kept.report.templateTokens + 4);
    const late = await agent.createSession();
    expect(await replies(late, ['Hello'], 8)).toEqual([expected]);
  });

  it('more sessions than `maxQueueSize` waiting are refused', async () => {
    const agent = await startAgent({ nSeqMax: 1, maxQueueSize: 1 });
    const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
    const results = await Promise.allSettled(sessions.map((session) => session.send('Hello', { maxTokens: 20 })));
    const codes = results.map((result) =>
      result.status === 'fulfilled' ? 'ok' : HeadstartError.isInstance(result.reason) && result.reason.code,
    );
    expect(codes.sort()).toEqual(['QUEUE_FULL', 'ok', 'ok']);
    expect((await replies(sessions[0] as never, ['Again'], 4)).length).toBe(1);
  });

  it('a turn whose sequence others have while its tool runs is not refused for want of a place in the queue', async () => {
    const agent = await startAgent({ nSeqMax: 1, maxQueueSize: 1, contextSize: 2048 });
    const others = [await agent.createSession(), await agent.createSession()];
    const turns: Promise<Reply>[] = [];
    const execute = async () => {
      turns.push(...others.map((session) => session.send('Hello', { maxTokens: 300 })));
      while (agent.health().queueLength < 1) {
        await new Promise(setImmediate);
      }
      return 'lit'; // one of them has the sequence, and the other the place in the queue
    };
    const session = await agent.createSession({ tools: [{ name: 'lamp', execute }] });
    const options = { toolChoice: 'required', maxParallelTools: 1, maxSteps: 2, maxTokens: 60 } as const;
    const turn = session.send('Light', options);
    expect((await turn).toolResults).toMatchObject([{ output: 'lit' }]);
    expect((await Promise.all(turns)).map(({ finishReason }) => finishReason)).toEqual(['length', 'length']);
    const refused = await Promise.allSettled([...others, session].map((each) => each.send('Again', { maxTokens: 4 })));
    expect(refused.filter(({ status }) => status === 'rejected')).toHaveLength(1); // the next turn is a new one
  });
});

describe('an abort', () => {
  /** A unified cache of which others hold all but so many cells. */
  const almostFull = async (free: number) => {
    const opened = await open({ kvCells: 512 });
    const holder = await opened.lease();
    await opened.engine.prefill(holder, someTokens(512 - free, 1), 0);
    return { ...opened, holder, own: await opened.lease() };
  };

  it('ends the wait for cells at once, with what was read before them in the sequence', async () => {
    const { engine, holder, own } = await almostFull(100);
    const controller = new AbortController();
    const told: number[] = [];
    const onDecoded = (tokens: Int32Array) => void told.push(...tokens);
    const refused = refusal(engine, 'decode');
    const waiting = engine.decode({
      sequence: own,
      tokens: someTokens(300, 2),
      from: 0,
      signal: controller.signal,
      onDecoded,
    });
    waiting.catch(() => undefined);
    await refused;
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    expect((await engine.context.positionRange(own)).last + 1).toBe(told.length);
    engine.sessions.release(own);
    engine.sessions.release(holder);
    await requireAllFree(engine);
  });

  it('that fires while there prove to be no cells does not go unheard', async () => {
    const { engine, holder, own } = await almostFull(56);
    await engine.prefill(own, someTokens(56, 2), 0);
    const controller = new AbortController();
    const { signal } = controller;
    const waiting = engine.decode({ sequence: own, tokens: Int32Array.of(20), from: 56, signal });
    setImmediate(() => controller.abort()); // behind the step that begins in the same turn of the event loop
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    engine.sessions.release(own);
    engine.sessions.release(holder);
    await requireAllFree(engine);
  });

  it('ends the wait of who gave its cells back, and its neighbour never notices', async () => {
    const { engine, lease } = await open({ kvCells: 512 });
    const [first, second] = [await lease(), await lease()];
    const expected = await generate(engine, first, someTokens(300, 1), 40);
    await engine.context.removeSequence(first);
    const controller = new AbortController();
    const other = engine.decode({
      sequence: second,
      tokens: someTokens(400, 2),
      from: 0,
      signal: controller.signal,
      onDecoded: () => undefined,
    });
    other.catch(() => undefined);
    const preempt = engine.context.preempt.bind(engine.context);
    engine.context.preempt = (sequence) => {
      preempt(sequence);
      queueMicrotask(() => controller.abort()); // it waits now
    };
    expect(await generate(engine, first, someTokens(300, 1), 40)).toEqual(expected);
    await expect(other).rejects.toMatchObject({ code: 'ABORTED', sequences: [second] });
    engine.sessions.release(first);
    engine.sessions.release(second);
    await requireAllFree(engine);
  });

  it.each([false, true])(
    'ends the wait for a sequence, and what the session comes back to stays (reproducible: %s)',
    async (reproducible) => {
      const agent = await startAgent({ nSeqMax: 1, reproducible });
      const session = await agent.createSession();
      await session.send('Hello. '.repeat(60), { maxTokens: 8 });
      const other = await agent.createSession(); // takes the one sequence
      const { savedBytes } = agent.health();
      expect(savedBytes > 0 || !reproducible).toBe(true);
      const running = other.send('Hello', { maxTokens: 100 });
      const controller = new AbortController();
      const waiting = session.send('And now?', { signal: controller.signal, maxTokens: 4 });
      waiting.catch(() => undefined);
      while (agent.health().queueLength < 1) {
        await new Promise(setImmediate);
      }
      controller.abort();
      await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
      expect(agent.health().queueLength).toBe(0); // the other is in a decode: it waits for nothing
      expect(agent.health().savedBytes).toBe(savedBytes);
      expect((await running).finishReason).toBe('length');
      expect((await session.send('And now?', { maxTokens: 4 })).usage.outputTokens).toBe(4);
    },
  );

  it.each([0, 1])(
    'ends the wait for the cells of a template that is put back (resident templates: %i)',
    async (count) => {
      const lab = await openLab({ kvCells: 512, residents: count, sessions: 2 });
      const template = someTokens(200, 1);
      await lab.start(template);
      if (count > 0) {
        await lab.start(someTokens(100, 3)); // takes the one place there is
      }
      const { sessions } = lab.engine;
      const holder = await sessions.lease({ busy: true, onEvicted: () => undefined });
      await lab.engine.prefill(holder, someTokens(400, 2), 0);
      const own = await sessions.lease({ busy: true, onEvicted: () => undefined });
      const controller = new AbortController();
      const refused = refusal(lab.engine, 'restoreSequence');
      const starting = lab.prefixCache.start(own, template, { signal: controller.signal });
      starting.catch(() => undefined);
      await refused;
      controller.abort();
      await expect(starting).rejects.toMatchObject({ code: 'ABORTED' });
      sessions.release(own);
      sessions.release(holder);
      await lab.cache.clear();
      await requireAllFree(lab.engine);
    },
  );

  it('by closing the cache ends that wait too', async () => {
    const lab = await openLab({ kvCells: 512, residents: 0, sessions: 2 });
    const template = someTokens(200, 1);
    await lab.start(template);
    const { sessions } = lab.engine;
    const holder = await sessions.lease({ busy: true, onEvicted: () => undefined });
    await lab.engine.prefill(holder, someTokens(400, 2), 0);
    const refused = refusal(lab.engine, 'restoreSequence');
    const own = await sessions.lease({ busy: true, onEvicted: () => undefined });
    const starting = expect(lab.prefixCache.start(own, template)).rejects.toMatchObject({ code: 'CLOSED' });
    await refused;
    await lab.prefixCache.close();
    await starting;
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'inside a decode leaves the sequence as it says, on %s memory',
    async (name) => {
      const { engine, lease } = await open({ name, batchSize: 2048, microBatchSize: 64 });
      const sequence = await lease();
      const tokens = someTokens(1500, 1);
      for (const delay of [0, 3, 8]) {
        const controller = new AbortController();
        const decoding = engine.decode({ sequence, tokens, from: 0, signal: controller.signal });
        setTimeout(() => controller.abort(), delay);
        await expect(decoding).rejects.toMatchObject({ code: 'ABORTED' });
        expect(await engine.context.positionRange(sequence)).toEqual({ first: -1, last: -1 });
        expect(engine.context.cells.length(sequence)).toBe(0);
        await engine.prefill(sequence, someTokens(3, 2), 0);
        await engine.context.removeSequence(sequence);
      }
      engine.sessions.release(sequence);
      await requireAllFree(engine);
    },
  );
});
