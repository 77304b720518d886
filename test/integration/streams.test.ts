// A turn runs as its own task. Its stream holds a limited number of parts, and readers may pause, stop or leave.
import { join } from 'node:path';
import {
  type AgentServer,
  HeadstartError,
  type LoraConfig,
  type ReplyStream,
  subscribeDiagnostics,
} from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { writeLora } from '../helpers/loras.js';
import { iterate } from '../helpers/turns.js';

/** More parts than a stream holds, whatever the model writes. */
const LONG = { maxTokens: 160, sampling: { ignoreEos: true } } as const;
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

  it('leaves its sequence to other sessions while it is paused', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 1 }));
    const alone = await (await agent.createSession()).send('Hello', LONG);
    const session = await agent.createSession();
    const parts = iterate(session.stream('Hello', LONG));
    await parts.next();
    await untilPaused(agent);
    const other = await agent.createSession();
    expect((await other.send('And now?', { maxTokens: 4 })).usage.outputTokens).toBe(4);
    await readAll(parts);
    expect(session.messages.at(-1)).toMatchObject({ content: alone.text });
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
    const turns = ['Hello', 'And now?'];
    const alone = async () => {
      const session = await agent.createSession();
      const texts = await replies(session, turns, 8);
      await session.close();
      return texts;
    };
    const expected = await alone();
    const neighbor = async () => expect(await alone()).toEqual(expected);
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
      await Promise.all([...left, neighbor(), agent.setLoras(round % 2 === 0 ? loras : [])]);
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
    const left = iterate(session.stream('Hello'));
    await left.return?.(); // before the turn began
    expect(await left.next()).toEqual({ value: undefined, done: true });
    expect(session.messages).toHaveLength(4);
  });

  it('that begins late gets only the later parts, with the `finish` part', async () => {
    const session = await (await startAgent()).createSession();
    const stream = session.stream('Hello', { maxTokens: 4 });
    await stream.result;
    expect(await readAll(iterate(stream))).toMatchObject([{ type: 'finish', finishReason: 'length' }]);
  });

  it('may request several parts at once', async () => {
    const session = await (await startAgent(EXACT)).createSession();
    const parts = iterate(session.stream('Hello', { maxTokens: 2 }));
    const results = await Promise.all(Array.from({ length: 6 }, () => parts.next()));
    const types = results.map(({ value }) => value?.type);
    expect(types.filter((type) => type === 'finish')).toHaveLength(1);
    expect(results.at(-1)).toEqual({ value: undefined, done: true });
  });

  it('never delays a change of adapters: a paused turn continues with the new ones', async () => {
    const agent = await startAgent(EXACT);
    const directory = await temporaryDirectory();
    const source = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    const parts = iterate(session.stream('Hello', LONG));
    await parts.next();
    await untilPaused(agent);
    await agent.setLoras([{ source, scale: 4 }]);
    expect((await readAll(parts)).at(-1)).toMatchObject({ type: 'finish', usage: { outputTokens: 160 } });
    await expect(agent.setLoras([{ source: join(directory, 'none.gguf') }])).rejects.toThrow();
  });
});
