// A turn runs as its own task. Its stream holds a limited number of parts, and readers may pause, stop or leave.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  type AgentServer,
  HeadstartError,
  type LoraConfig,
  type ReplyStream,
  type Session,
  subscribeDiagnostics,
} from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { writeLora } from '../helpers/loras.js';
import { exactReply, withoutRecording } from '../helpers/reproducible.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** More parts than a stream holds, whatever the model writes. */
const LONG = { maxTokens: 160, sampling: { ignoreEos: true } } as const;
const TURNS = ['Hello', 'And now?'];
/** An upper bound of the parts that a stream holds: its limit plus a few, because one token may make several parts. */
const HELD = 70;

const settings = (name: 'dense' | 'sliding-window' | 'hybrid', more: AgentSettings = {}): AgentSettings => ({
  name,
  ...EXACT,
  contextSize: 1024,
  maxResidentTemplates: 0,
  ...more,
});

async function readAll<Part>(parts: AsyncIterator<Part>): Promise<Part[]> {
  const all: Part[] = [];
  for (let next = await parts.next(); !next.done; next = await parts.next()) {
    all.push(next.value);
  }
  return all;
}

/** Returns a function that returns the number of decodes since this call. */
function countDecodes(): () => number {
  let decodes = 0;
  onTestFinished(subscribeDiagnostics('decode', () => decodes++));
  return () => decodes;
}

/** A new session that replies as `expected`, beside whatever else the agent does. */
async function neighbor(agent: AgentServer, expected: string[]): Promise<void> {
  const session = await agent.createSession();
  expect(await replies(session, TURNS, 8)).toEqual(expected);
  await session.close();
}

/** Waits until no turn computes, because their readers have paused. */
const untilPaused = (agent: AgentServer) =>
  vi.waitUntil(() => agent.health().activeSessions === 0, { timeout: 60_000 });

describe.each(['dense', 'sliding-window', 'hybrid'] as const)('a stream on %s memory', (name) => {
  it('pauses its turn while its reader pauses, and then continues with the same reply', async () => {
    const agent = await startAgent(settings(name));
    const expected = await (await agent.createSession()).send('Hello', LONG);
    const decodes = countDecodes();
    const session = await agent.createSession();
    const parts = iterate(session.stream('Hello', LONG));
    await parts.next();
    await untilPaused(agent);
    expect(decodes()).toBeLessThan(HELD);
    expect(session.busy).toBe(false);
    const rest = await readAll(parts);
    expect(rest.at(-1)).toMatchObject({ type: 'finish', finishReason: 'length', usage: { outputTokens: 160 } });
    expect(session.messages.at(-1)).toMatchObject({ content: expected.text });
  });

  it('continues with the same reply after each pause, although others had its sequence and adapters changed', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 1 }));
    const expected = await replies(await agent.createSession(), TURNS, 8);
    const { text } = await (await agent.createSession()).send('Hello', LONG);
    const session = await agent.createSession();
    const parts = iterate(session.stream('Hello', LONG));
    for (let taken = 0; taken < 80; taken++) {
      if (taken % 40 === 1) {
        await untilPaused(agent);
        await neighbor(agent, expected);
        await agent.setLoras([]); // a change that changes no reply
      }
      expect((await parts.next()).value).toMatchObject({ type: 'text-delta' });
    }
    await readAll(parts);
    expect(session.messages.at(-1)).toMatchObject({ content: text });
  });

  it('may be left until the program asks for the part after the last, although the reply is complete', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 1 }));
    const expected = await replies(await agent.createSession(), TURNS, 8);
    const session = await agent.createSession();
    for (const isLeft of [true, false]) {
      const stream = session.stream('Hello', { maxTokens: 8 });
      const parts = iterate(stream);
      await parts.next();
      await untilPaused(agent); // the reply is complete
      await neighbor(agent, expected); // takes the sequence
      await agent.setLoras([]);
      expect(session.messages).toEqual([]);
      await (isLeft ? parts.return?.() : readAll(parts));
      expect(await outcomeOf(stream.result)).toBe(isLeft ? 'ABORTED' : 'done');
    }
    expect(session.messages.at(-1)).toMatchObject({ content: expected[0] });
    expect(await replies(session, ['And now?'], 8)).toEqual(expected.slice(1));
  });

  it.each([
    ['CLOSED', 'its session closes', (session: Session) => session.close()],
    ['ABORTED', 'its signal aborts', (_: Session, controller: AbortController) => controller.abort()],
  ] as const)('throws %s without a finish part if %s while it is paused', async (code, _, end) => {
    const agent = await startAgent(settings(name));
    const expected = await replies(await agent.createSession(), TURNS, 8);
    const session = await agent.createSession();
    const controller = new AbortController();
    const stream = session.stream('Hello', { ...LONG, signal: controller.signal });
    const parts = iterate(stream);
    await parts.next();
    await untilPaused(agent);
    await Promise.all([end(session, controller), neighbor(agent, expected)]);
    const error = await parts.next().catch((thrown: unknown) => thrown); // the parts in the queue are dropped
    expect(error).toMatchObject({
      name: 'HeadstartError',
      code,
      usage: { steps: 1, outputTokens: expect.any(Number) },
    });
    await expect(stream.result).rejects.toBe(error);
    expect(await parts.next()).toEqual({ value: undefined, done: true });
    expect(session.messages).toEqual([]);
  });

  it('is left when its reader was garbage-collected, and not while its reader awaits a part', async () => {
    const agent = await startAgent(settings(name, { batchSize: 32 }));
    const expected = await replies(await agent.createSession(), TURNS, 8);
    const session = await agent.createSession();
    const firstPart = (message: string) => iterate(session.stream(message, LONG)).next();
    const unsubscribe = subscribeDiagnostics('decode', () => collectGarbage());
    expect((await firstPart('word '.repeat(120))).value).toMatchObject({ type: 'text-delta' });
    unsubscribe();
    for (let isBusy = true; isBusy; ) {
      collectGarbage();
      await new Promise(setImmediate);
      isBusy = (await outcomeOf(session.fork().then((fork) => fork.close()))) === 'SESSION_BUSY';
    }
    expect(session.messages).toEqual([]);
    expect(await replies(session, TURNS, 8)).toEqual(expected);
  });

  it('changes no bit of a reply in reproducible mode, whether it is paused, left complete, or loses its sequence', async () => {
    const start = () => startAgent({ name, reproducible: true, nSeqMax: 1, contextSize: 1024 });
    const say = (session: Session, message: string) => exactReply(() => session.send(message, LONG));
    const alone = await (await start()).createSession();
    const expected = [await say(alone, 'Hello'), await say(alone, 'And now?')];
    const agent = await start();
    const session = await agent.createSession();
    const takeSequence = () =>
      withoutRecording(async () => {
        await untilPaused(agent);
        const other = await agent.createSession({ systemPrompt: 'You are somebody else.' });
        await other.send('Hi', { maxTokens: 2 });
        await other.close();
      });
    for (const options of [{ maxTokens: 4 }, LONG]) {
      for (const isEvicted of [false, true]) {
        const left = iterate(session.stream('Never mind', options));
        await left.next();
        await (isEvicted ? takeSequence() : untilPaused(agent));
        await left.return?.();
      }
    }
    const streamed = await exactReply(async () => {
      const stream = session.stream('Hello', LONG);
      const parts = iterate(stream);
      await parts.next();
      await takeSequence();
      await readAll(parts);
      return stream.result;
    });
    expect([streamed, await say(session, 'And now?')]).toEqual(expected);
  });

  it('ends its turn at once when its reader leaves, as if the message had never been sent', async () => {
    const agent = await startAgent(settings(name));
    const expected = await replies(await agent.createSession(), ['Hello', 'And now?'], 8);
    const session = await agent.createSession();
    const stream = session.stream('Something else', LONG);
    for await (const part of stream) {
      expect(part.type).toBe('text-delta');
      break;
    }
    await expect(stream.result).rejects.toMatchObject({ code: 'ABORTED', usage: { steps: 1 } });
    expect(session.busy).toBe(false);
    expect(session.messages).toEqual([]);
    expect(await replies(session, ['Hello', 'And now?'], 8)).toEqual(expected);
  });

  it('holds nothing after 200 readers left, paused or aborted, while adapters changed and sessions ran', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 3, contextSize: 512 }));
    const loras: LoraConfig[] = [];
    if (name === 'dense') {
      const source = await writeLora(await temporaryDirectory(), 'zero', { value: 0 }, agent.model.info.embeddingSize);
      loras.push({ source, scale: 1 }); // changes no reply
    }
    const first = await agent.createSession();
    const expected = await replies(first, TURNS, 8);
    await first.close();
    const leave = async (number: number) => {
      const session = await agent.createSession();
      const controller = new AbortController();
      const parts = iterate(session.stream('Hello', { ...LONG, signal: controller.signal }));
      await parts.next();
      if (number % 4 === 0) {
        controller.abort();
        await expect(parts.next()).rejects.toMatchObject({ code: 'ABORTED' });
      } else if (number % 4 === 1) {
        await parts.return?.();
      } // otherwise the reader pauses forever
      await session.close();
    };
    for (let round = 0; round < 20; round++) {
      const left = Array.from({ length: 10 }, (_, number) => leave(number));
      await Promise.all([...left, neighbor(agent, expected), agent.setLoras(round % 2 === 0 ? loras : [])]);
    }
    expect(agent.health()).toMatchObject(NOTHING_HELD);
  });
});

describe('the result of a stream', () => {
  it('is the whole reply of a turn or completion, with or without iteration', async () => {
    const agent = await startAgent(EXACT);
    const open = async () => (await agent.createSession()).stream('Hello', LONG);
    expect(await (await open()).result).toMatchObject({ finishReason: 'length', usage: { outputTokens: 160 } });
    for (const stream of [await open(), agent.streamComplete('Hello', LONG)]) {
      let text = '';
      const { result } = stream;
      for await (const part of stream) {
        text += part.type === 'text-delta' ? part.text : '';
      }
      expect(text.length).toBeGreaterThan(100);
      expect((await result).text).toBe(text);
      expect((await stream.result).text).toBe(text);
    }
  });

  it('of a completion settles when the last part is read, or its reader leaves, or the agent closes', async () => {
    const agent = await startAgent(EXACT);
    const begin = async () => {
      const stream = agent.streamComplete('Hello', { maxTokens: 4, sampling: { ignoreEos: true } });
      const parts = iterate(stream);
      await parts.next();
      await vi.waitUntil(() => agent.health().heldSequences === 0, { timeout: 60_000 }); // all is generated
      return { parts, outcome: outcomeOf(stream.result) };
    };
    const [read, left, closed] = [await begin(), await begin(), await begin()];
    expect((await readAll(read.parts)).at(-1)).toMatchObject({ type: 'finish' });
    await left.parts.return?.();
    await agent.close();
    expect([await read.outcome, await left.outcome, await closed.outcome]).toEqual(['done', 'ABORTED', 'CLOSED']);
    await expect(closed.parts.next()).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('rejects with an error of its own if several turns share the signal that aborts them', async () => {
    const agent = await startAgent();
    const controller = new AbortController();
    const streams = ['Hello', 'Hello, how are you?'].map(async (message) => {
      const stream = (await agent.createSession()).stream(message, { ...LONG, signal: controller.signal });
      const parts = iterate(stream);
      await parts.next();
      return { parts, errors: stream.result.catch((error: HeadstartError) => [error]) };
    });
    const [first, second] = await Promise.all(streams);
    controller.abort(new HeadstartError('ABORTED', 'Enough'));
    expect(await first?.errors).toMatchObject([{ code: 'ABORTED', message: 'Enough', usage: { inputTokens: 130 } }]);
    expect(await second?.errors).toMatchObject([{ code: 'ABORTED', usage: { inputTokens: 137 } }]);
  });

  it('resolves when the last part is read, and then the turn is part of the conversation', async () => {
    const session = await (await startAgent(EXACT)).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    const parts = iterate(stream);
    let settled = false;
    void stream.result.then(() => {
      settled = true;
    });
    await parts.next();
    await vi.waitUntil(() => !session.busy, { timeout: 60_000 }); // the reply is complete
    expect({ settled, messages: session.messages }).toEqual({ settled: false, messages: [] });
    await expect(session.send('And now?')).rejects.toMatchObject({ code: 'SESSION_BUSY' });
    await readAll(parts);
    await stream.result;
    expect(session.messages).toHaveLength(2);
  });

  it('rejects with the error that the iteration throws, and never as an unhandled rejection', async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    onTestFinished(() => void process.off('unhandledRejection', note));
    const agent = await startAgent({ contextSize: 256 });
    const session = await agent.createSession();
    const failing = [
      () => session.stream('word '.repeat(2000)),
      () => session.stream({ role: 'wizard' } as never),
      () => agent.streamComplete('word '.repeat(2000)),
      () => agent.streamComplete(7 as never),
    ];
    for (const open of failing) {
      const stream: ReplyStream<unknown, unknown> = open();
      const thrown = await readAll(iterate(stream)).then(
        () => expect.unreachable(),
        (error: unknown) => error,
      );
      await expect(stream.result).rejects.toBe(thrown);
      expect(thrown).toBeInstanceOf(HeadstartError);
      expect('usage' in (thrown as object)).toBe((thrown as HeadstartError).code !== 'INVALID_ARGUMENT');
      const again: ReplyStream<unknown, unknown> = open();
      await expect(readAll(iterate(again))).rejects.toMatchObject({ code: (thrown as HeadstartError).code });
      void open().result; // this rejection has no handler
    }
    await new Promise(setImmediate);
    await expect(session.send('Hello', { maxTokens: 2 })).resolves.toMatchObject({ usage: { outputTokens: 2 } });
    expect(unhandled).toEqual([]);
  });
});

describe('the iteration of a stream', () => {
  it('begins once: a second iteration throws STREAM_USED and does not affect the first', async () => {
    const session = await (await startAgent()).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    const parts = iterate(stream);
    expect(() => iterate(stream)).toThrow(expect.objectContaining({ code: 'STREAM_USED' }));
    expect((await readAll(parts)).at(-1)).toMatchObject({ type: 'finish' });
    expect(() => iterate(stream)).toThrow(expect.objectContaining({ code: 'STREAM_USED' }));
    expect(await parts.next()).toEqual({ value: undefined, done: true });
  });

  it('begins the turn: the call of `stream` alone does not', async () => {
    const session = await (await startAgent()).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    await session.send('First', { maxTokens: 2 });
    await readAll(iterate(stream));
    expect(session.messages.map(({ content }) => content)).toMatchObject({ 0: 'First', 2: 'Hello' });
    const events: string[] = [];
    onTestFinished(subscribeDiagnostics('turn', ({ event }) => events.push(event)));
    const left = iterate(session.stream('Hello'));
    await left.return?.(); // before the turn began
    expect(await left.next()).toEqual({ value: undefined, done: true });
    expect(events).toEqual([]);
    expect(session.messages).toHaveLength(4);
  });

  it('that begins late gets only the later parts, with the `finish` part', async () => {
    const session = await (await startAgent()).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    await stream.result;
    expect(await readAll(iterate(stream))).toMatchObject([{ type: 'finish', finishReason: 'length' }]);
  });

  it('ends without an error for parts that were asked for when it is left', async () => {
    const session = await (await startAgent()).createSession();
    const parts = iterate(session.stream('Hello', LONG));
    const pending = [parts.next(), parts.next()];
    const after = [parts.return?.(), parts.next()];
    const done = { value: undefined, done: true };
    expect(await Promise.all([...pending, ...after])).toEqual([done, done, done, done]);
    expect(session.messages).toEqual([]);
  });

  it('may close its session, but not use it for something else', async () => {
    const session = await (await startAgent()).createSession();
    const outcomes: string[] = [];
    const read = async () => {
      for await (const _ of session.stream('Hello', LONG)) {
        outcomes.push(await outcomeOf(session.send('And now?')), await outcomeOf(session.fork()));
        await session.close();
      }
    };
    expect(await outcomeOf(read())).toBe('CLOSED');
    expect(outcomes).toEqual(['SESSION_BUSY', 'SESSION_BUSY']);
  });

  it('may request several parts at once', async () => {
    const session = await (await startAgent(EXACT)).createSession();
    const parts = iterate(session.stream('Hello', { maxTokens: 2 }));
    const results = await Promise.all(Array.from({ length: 6 }, () => parts.next()));
    const types = results.map(({ value }) => value?.type);
    expect(types.filter((type) => type === 'finish')).toHaveLength(1);
    expect(results.at(-1)).toEqual({ value: undefined, done: true });
  });
});
