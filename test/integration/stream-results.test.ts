// Tests the result and the iteration of a stream: when they begin, how they end, and what they refuse.
import { HeadstartError, type ReplyStream, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { LONG, MEMORIES, readAll, settings } from '../helpers/streams.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

describe.each(MEMORIES)('the result of a stream with the %s model', (name) => {
  it('is the whole reply of a turn or completion, with or without iteration', async () => {
    const agent = await startAgent(settings(name));
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
    const agent = await startAgent(settings(name));
    const begin = async () => {
      const stream = agent.streamComplete('Hello', { maxTokens: 4, sampling: { ignoreEos: true } });
      const parts = iterate(stream);
      await parts.next();
      await vi.waitUntil(() => agent.health().heldSequences === 0, { timeout: 60_000 }); // the reply is complete
      return { parts, outcome: outcomeOf(stream.result) };
    };
    const [read, left, closed] = [await begin(), await begin(), await begin()];
    expect((await readAll(read.parts)).at(-1)).toMatchObject({ type: 'finish' });
    await left.parts.return?.();
    await agent.close();
    expect([await read.outcome, await left.outcome, await closed.outcome]).toEqual(['done', 'ABORTED', 'CLOSED']);
    await expect(closed.parts.next()).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('rejects with a separate error for each turn if several turns share the signal that aborts them', async () => {
    const agent = await startAgent(settings(name));
    const controller = new AbortController();
    const streams = ['Hello', 'Hello, how are you?'].map(async (message) => {
      const stream = (await agent.createSession()).stream(message, { ...LONG, signal: controller.signal });
      const parts = iterate(stream);
      await parts.next();
      return { error: stream.result.catch((error: HeadstartError) => error) };
    });
    const [first, second] = await Promise.all(streams);
    controller.abort(new HeadstartError('ABORTED', 'Enough'));
    const [short, long] = [await first?.error, await second?.error] as [HeadstartError, HeadstartError];
    expect([short, long]).toMatchObject([{ code: 'ABORTED', message: 'Enough' }, { code: 'ABORTED' }]);
    expect(long.usage?.inputTokens).toBeGreaterThan(short.usage?.inputTokens as number);
  });

  it('resolves when the last part is read, and then the turn is part of the conversation', async () => {
    const session = await (await startAgent(settings(name))).createSession();
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
    const agent = await startAgent(settings(name, { contextSize: 256 }));
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
      void open().result; // nothing handles this rejection
    }
    await new Promise(setImmediate);
    await expect(session.send('Hello', { maxTokens: 2 })).resolves.toMatchObject({ usage: { outputTokens: 2 } });
    expect(unhandled).toEqual([]);
  });
});

describe.each(MEMORIES)('the iteration of a stream with the %s model', (name) => {
  it('begins once: a second iteration throws STREAM_USED and does not affect the first', async () => {
    const session = await (await startAgent(settings(name))).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    const parts = iterate(stream);
    expect(() => iterate(stream)).toThrow(expect.objectContaining({ code: 'STREAM_USED' }));
    expect((await readAll(parts)).at(-1)).toMatchObject({ type: 'finish' });
    expect(() => iterate(stream)).toThrow(expect.objectContaining({ code: 'STREAM_USED' }));
    expect(await parts.next()).toEqual({ value: undefined, done: true });
  });

  it('begins the turn: the call of `stream` alone does not', async () => {
    const session = await (await startAgent(settings(name))).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    await session.send('First', { maxTokens: 2 });
    await readAll(iterate(stream));
    expect(session.messages.map(({ content }) => content)).toMatchObject({ 0: 'First', 2: 'Hello' });
    const events: string[] = [];
    onTestFinished(subscribeDiagnostics('turn', ({ event }) => events.push(event)));
    const left = iterate(session.stream('Hello'));
    await left.return?.(); // the reader leaves before the turn begins
    expect(await left.next()).toEqual({ value: undefined, done: true });
    expect(events).toEqual([]);
    expect(session.messages).toHaveLength(4);
  });

  it('that begins after the end of the turn gets only the `finish` part', async () => {
    const session = await (await startAgent(settings(name))).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    await stream.result;
    expect(await readAll(iterate(stream))).toMatchObject([{ type: 'finish', finishReason: 'length' }]);
  });

  it('resolves pending requests for parts without an error when its reader leaves', async () => {
    const session = await (await startAgent(settings(name))).createSession();
    const parts = iterate(session.stream('Hello', LONG));
    const pending = [parts.next(), parts.next()];
    const after = [parts.return?.(), parts.next()];
    const done = { value: undefined, done: true };
    expect(await Promise.all([...pending, ...after])).toEqual([done, done, done, done]);
    expect(session.messages).toEqual([]);
  });

  it('may close its session, but other calls of the session fail with SESSION_BUSY', async () => {
    const session = await (await startAgent(settings(name))).createSession();
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
    const session = await (await startAgent(settings(name))).createSession();
    const parts = iterate(session.stream('Hello', { maxTokens: 2 }));
    const results = await Promise.all(Array.from({ length: 6 }, () => parts.next()));
    const types = results.map(({ value }) => value?.type);
    expect(types.filter((type) => type === 'finish')).toHaveLength(1);
    expect(results.at(-1)).toEqual({ value: undefined, done: true });
  });
});
