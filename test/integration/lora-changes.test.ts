// Tests changes of LoRA adapters while sessions run.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { MessageInput } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { EXACT, replies, startAgent, temporaryDirectory, uncachedReplies } from '../helpers/agents.js';
import { LORA_METADATA, writeLora } from '../helpers/loras.js';
import { withEnoughTime } from '../helpers/time-limits.js';
import { iterate } from '../helpers/turns.js';

describe('a LoRA adapter', () => {
  it('and its scale are part of the cache key, and no session reuses a KV state of other adapters', async () => {
    const directory = await temporaryDirectory();
    const settings = { ...EXACT, cacheDir: join(directory, 'cache') };
    const agent = await startAgent(settings);
    const { embeddingSize } = agent.model.info;
    const one = await writeLora(directory, 'one', { seed: 1 }, embeddingSize);
    const two = await writeLora(directory, 'two', { seed: 2 }, embeddingSize);
    const keys = new Set<string>();
    const choices = [
      [],
      [{ source: one }],
      [{ source: one, scale: 0.5 }],
      [{ source: two }],
      [{ source: one }, { source: two }],
    ];
    for (const loras of choices) {
      await agent.setLoras(loras);
      const session = await agent.createSession();
      expect(session.report.cache).toBe('miss');
      keys.add(session.report.key);
      expect(await replies(session, ['Hello'], 12)).toEqual(await uncachedReplies({ ...EXACT, loras }, ['Hello'], 12));
      await session.close();
    }
    expect(keys.size).toBe(choices.length);
    await agent.setLoras([{ source: one, scale: 1 }]);
    expect((await agent.createSession()).report).toMatchObject({ source: 'memory', key: [...keys][1] });
  });

  it('with scale 0 does not change the cache key, and a copy of its file gives the same key as the file', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent();
    const { embeddingSize } = agent.model.info;
    const lora = await writeLora(directory, 'one', { seed: 1 }, embeddingSize);
    await mkdir(join(directory, 'elsewhere'));
    const copy = await writeLora(join(directory, 'elsewhere'), 'copy', { seed: 1 }, embeddingSize);
    const keyWith = async (loras: { source: string; scale?: number }[]) => {
      await agent.setLoras(loras);
      const session = await agent.createSession();
      await session.close();
      return session.report.key;
    };
    expect(await keyWith([{ source: lora, scale: 0 }])).toBe(await keyWith([]));
    expect(await keyWith([{ source: copy }])).toBe(await keyWith([{ source: lora }]));
  });

  it('applies to an open session from its next turn on', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    const other = await agent.createSession();
    const [first] = await replies(session, ['Hello'], 6);
    expect(await uncachedReplies(EXACT, ['Hello'], 6)).toEqual([first]);
    await agent.setLoras([{ source: lora, scale: 4 }]);
    expect(await replies(other, ['Hello'], 6)).toEqual(
      await uncachedReplies({ ...EXACT, loras: [{ source: lora, scale: 4 }] }, ['Hello'], 6),
    );
    await agent.setLoras([]);
    expect(await replies(session, ['And now?'], 6)).toEqual(
      (await uncachedReplies(EXACT, ['Hello', 'And now?'], 6)).slice(1),
    );
  });

  it('that is set drops the states of conversations from memory, and keeps the states of templates', async () => {
    const agent = await startAgent({ name: 'sliding-window', maxResidentTemplates: 0 });
    const architecture = agent.model.metadata()['general.architecture'];
    const metadata = LORA_METADATA.map(([key, type, value]): (typeof LORA_METADATA)[number] => [
      key,
      type,
      key === 'general.architecture' ? architecture : value,
    ]);
    const lora = await writeLora(await temporaryDirectory(), 'one', { metadata }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    await replies(session, ['Hello'], 4);
    const { byKind } = agent.health().states;
    expect(byKind).toMatchObject({ template: { count: 1 }, conversation: { count: 1 } });
    await agent.setLoras([{ source: lora }]);
    expect(agent.health().states.byKind).toEqual({ ...byKind, conversation: { count: 0, bytes: 0 } });
    await agent.setLoras([]);
    expect((await agent.createSession()).report.source).toBe('memory');
  });

  it('is applied after the current turn; until then, an abort or an invalid adapter changes nothing', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    const [expected] = await uncachedReplies(EXACT, ['Hello'], 8);
    const stream = session.stream('Hello', { maxTokens: 8 })[Symbol.asyncIterator]();
    let text = '';
    const read = (part: { type: string; text?: string }) => {
      text += part.type === 'text-delta' ? part.text : '';
    };
    read((await stream.next()).value as never);
    const controller = new AbortController();
    const aborted = agent.setLoras([{ source: lora }], { signal: controller.signal });
    const waiting = agent.setLoras([{ source: lora }]);
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(agent.setLoras([{ source: join(directory, 'none.gguf') }])).rejects.toMatchObject({
      code: 'LORA_NOT_FOUND',
    });
    await expect(agent.setLoras('x' as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    for (let next = await stream.next(); !next.done; next = await stream.next()) {
      read(next.value as never);
    }
    expect(text).toBe(expected); // the whole turn used the adapters that were set when it began
    await waiting;
    const next = await agent.createSession();
    expect(await replies(next, ['Hello'], 8)).toEqual(
      await uncachedReplies({ ...EXACT, loras: [{ source: lora }] }, ['Hello'], 8),
    );
  });

  it('applies to a turn that waited for the change, even if its conversation was already in the KV cache', async () => {
    const directory = await temporaryDirectory();
    const plain = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, plain.model.info.embeddingSize);
    const agent = await startAgent({ ...EXACT, loras: [{ source: lora, scale: 4 }] });
    const [session, saved, reader] = [
      await agent.createSession(),
      await agent.createSession(),
      await agent.createSession(),
    ];
    const [[first]] = [await replies(session, ['Hello'], 6), await replies(saved, ['Hello'], 6)];
    const stream = reader.stream('Hello', { maxTokens: 2 })[Symbol.asyncIterator]();
    await stream.next();
    const changing = agent.setLoras([]); // waits while the turn of the stream computes
    await new Promise(setImmediate);
    const waiting = session.send('And now?', { maxTokens: 16 });
    const file = join(directory, 'saved.json');
    const saving = saved.save(file, { state: true });
    await stream.return?.();
    await changing;
    const messages: MessageInput[] = [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: first as string },
    ];
    const [expected] = await replies(await plain.createSession({ messages }), ['And now?'], 16);
    expect((await waiting).text).toBe(expected);
    await saving;
    await saved.close();
    expect(await replies(await agent.restoreSession(file), ['And now?'], 16)).toEqual([expected]);
  });

  it('is applied while the reader of a stream pauses, and the reply then continues with the new adapter', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const loras = [{ source: lora, scale: 4 }];
    const session = await agent.createSession();
    const options = { maxTokens: 200, sampling: { ignoreEos: true } } as const; // more parts than a stream buffers
    const streams = [iterate(session.stream('Hello', options)), iterate(agent.streamComplete('Hello', options))];
    for (const stream of streams) {
      await stream.next();
    }
    await agent.setLoras(loras);
    for (const stream of streams) {
      let last: object | undefined;
      for (let next = await stream.next(); !next.done; next = await stream.next()) {
        last = next.value;
      }
      expect(last).toMatchObject({ finishReason: 'length', usage: { outputTokens: 200 } });
    }
    const adapted = await (await startAgent({ ...EXACT, loras })).createSession({ messages: session.messages });
    expect(await replies(session, ['And now?'], 16)).toEqual(await replies(adapted, ['And now?'], 16));
  });

  describe('that waits for a long turn', () => {
    const open = async () => {
      const agent = await startAgent({ contextSize: 8192 });
      const long = await agent.createSession();
      const controller = new AbortController();
      const waitForTurn = async () => {
        const options = { sampling: { ignoreEos: true }, signal: controller.signal };
        const turn = expect(long.send('Hello', options)).rejects.toMatchObject({ code: 'ABORTED' });
        const setting = agent.setLoras([]);
        await new Promise(setImmediate); // the change waits for the turn now
        return { turn, setting };
      };
      return { agent, waitForTurn, controller };
    };

    it('makes another turn wait no longer than the `timeoutMs` of the waiting turn', async () => {
      const { agent, waitForTurn, controller } = await open();
      const session = await agent.createSession();
      const { turn, setting } = await waitForTurn();
      const late = { code: 'ABORTED', message: expect.stringMatching(/`timeoutMs` \(20 ms\)/) };
      await expect(session.send('Hello', { timeoutMs: 20 })).rejects.toMatchObject(late);
      await expect(agent.complete('Hello', { timeoutMs: 20 })).rejects.toMatchObject(late);
      controller.abort();
      await Promise.all([turn, setting]);
      expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
    });

    it('makes a turn with tools wait no longer than the `timeoutMs` of the turn with tools', async () => {
      await withEnoughTime(500, async (timeoutMs) => {
        const { agent, waitForTurn, controller } = await open();
        let change: Awaited<ReturnType<typeof waitForTurn>> | undefined;
        const execute = async () => {
          change = await waitForTurn();
        };
        const session = await agent.createSession({ tools: [{ name: 'look', execute }] });
        const options = { toolChoice: 'required', maxParallelTools: 1, maxTokens: 60, timeoutMs } as const;
        await expect(session.send('Look', options)).rejects.toMatchObject({ code: 'ABORTED' });
        controller.abort();
        await Promise.all([change?.turn, change?.setting]);
        expect(change).toBeDefined(); // undefined if the turn timed out before the call
      });
    });
  });

  it('is applied even after a reader paused, left its stream and began another turn', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ nSeqMax: 1 });
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const [session, other] = [await agent.createSession(), await agent.createSession()];
    // The reply has more parts than a stream buffers. So the turn pauses, and the other session gets the only sequence.
    for await (const _ of session.stream('Hello', { maxTokens: 100, sampling: { ignoreEos: true } })) {
      await other.send('Hello', { maxTokens: 2 });
      break;
    }
    await session.send('And now?', { maxTokens: 4 });
    await agent.setLoras([{ source: lora }]);
    await session.send('And now?', { maxTokens: 4 });
  });

  it('is changed without a deadlock while two sessions share one sequence', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const [one, other] = [await agent.createSession(), await agent.createSession()];
    await replies(one, ['Hello'], 2); // now `one` holds the sequence
    const reading = other.send('word '.repeat(200), { maxTokens: 2 });
    const changing = agent.setLoras([]); // waits for the turn of `other`, which has no sequence yet
    await new Promise(setImmediate);
    const waiting = one.send('And now?', { maxTokens: 2 });
    await Promise.all([reading, changing, waiting]);
  });
});
