// A turn runs as its own task. Its stream holds a limited number of parts, and readers may pause, stop or leave.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type AgentServer, type LoraConfig, type Session, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { NOTHING_HELD, replies, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { LORA_METADATA, writeLora } from '../helpers/loras.js';
import { exactReply, withoutRecording } from '../helpers/reproducible.js';
import { rounds, variants } from '../helpers/soak.js';
import { LONG, MEMORIES, readAll, settings } from '../helpers/streams.js';
import { iterate, outcomeOf } from '../helpers/turns.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const TURNS = ['Hello', 'And now?'];
/** An upper bound of the parts that a stream buffers: its limit plus a few, because a token may cause several parts. */
const HELD = 70;

/** Counts decodes from now on. The returned function returns the number of decodes. */
function countDecodes(): () => number {
  let decodes = 0;
  onTestFinished(subscribeDiagnostics('decode', () => decodes++));
  return () => decodes;
}

/** Opens a new session and expects the replies `expected`, whatever else the agent does at the same time. */
async function neighbor(agent: AgentServer, expected: string[]): Promise<void> {
  const session = await agent.createSession();
  expect(await replies(session, TURNS, 8)).toEqual(expected);
  await session.close();
}

/** Writes an adapter that changes no reply. */
async function zeroAdapter(agent: AgentServer): Promise<LoraConfig[]> {
  const { architecture, embeddingSize } = agent.model.info;
  const metadata = LORA_METADATA.map(([key, type, value]): (typeof LORA_METADATA)[number] => [
    key,
    type,
    key === 'general.architecture' ? architecture : value,
  ]);
  const file = { value: 0, weight: 'output.weight', outputs: agent.model.info.vocabulary.size, metadata };
  return [{ source: await writeLora(await temporaryDirectory(), 'zero', file, embeddingSize), scale: 1 }];
}

/** Waits until no turn computes, because the readers of all turns have paused. */
const untilPaused = (agent: AgentServer) =>
  vi.waitUntil(() => agent.health().activeSessions === 0, { timeout: 60_000 });

// reproducible-forks.test.ts pauses a stream with a sliding-window model.
const isRepresentative = (name: string) => name !== 'sliding-window';

describe.each(variants(MEMORIES, isRepresentative))('a stream with the %s model', (name) => {
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

  it('continues with the same reply after each pause, even if its sequence was lost and adapters changed', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 1 }));
    const loras = await zeroAdapter(agent);
    const expected = await replies(await agent.createSession(), TURNS, 8);
    const { text } = await (await agent.createSession()).send('Hello', LONG);
    const session = await agent.createSession();
    const parts = iterate(session.stream('Hello', LONG));
    for (let taken = 0; taken < 80; taken++) {
      if (taken % 40 === 1) {
        await untilPaused(agent);
        await neighbor(agent, expected);
        await agent.setLoras(taken === 1 ? loras : []);
      }
      expect((await parts.next()).value).toMatchObject({ type: 'text-delta' });
    }
    await readAll(parts);
    expect(session.messages.at(-1)).toMatchObject({ content: text });
  });

  it('may be left without an effect until its `finish` part is read, even if the reply is complete', async () => {
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
  ] as const)('throws %s without a `finish` part if %s while the stream is paused', async (code, _, end) => {
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

  it('ends when its reader was garbage-collected, but not while its reader awaits a part', async () => {
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

  it('changes no bit of a reproducible reply if it is paused, left or loses its sequence', async () => {
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
    const decodes = countDecodes();
    let before = 0;
    for await (const part of stream) {
      expect(part.type).toBe('text-delta');
      before = decodes();
      break;
    }
    expect(decodes() - before).toBeLessThanOrEqual(1); // one decode may be in progress
    await expect(stream.result).rejects.toMatchObject({ code: 'ABORTED', usage: { steps: 1 } });
    expect(session.busy).toBe(false);
    expect(session.messages).toEqual([]);
    expect(await replies(session, ['Hello', 'And now?'], 8)).toEqual(expected);
  });

  it('holds no sequence or cell after many readers left, paused or aborted, while adapters changed', async () => {
    const agent = await startAgent(settings(name, { nSeqMax: 3, contextSize: 512 }));
    const loras = await zeroAdapter(agent);
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
    for (let round = 0; round < rounds(4, 20); round++) {
      const left = Array.from({ length: 10 }, (_, number) => leave(number));
      await Promise.all([...left, neighbor(agent, expected), agent.setLoras(round % 2 === 0 ? loras : [])]);
    }
    expect(agent.health()).toMatchObject(NOTHING_HELD);
  });
});
