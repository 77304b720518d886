// A turn may end early or late: by an abort, a `break`, or a reader that pauses. Afterwards the session works as
// before.
import { describe, expect, it } from 'vitest';
import { EXACT, replies, startAgent, uncachedReplies } from '../helpers/agents.js';
import { afterDecodes } from '../helpers/event-loop.js';
import { LONG_PROMPT } from '../helpers/prompts.js';
import { variants } from '../helpers/soak.js';
import { expectLikeNew, readTurn, withCode } from '../helpers/turns.js';

describe('a turn', () => {
  it('that is aborted before it begins has no effect on the session', async () => {
    const session = await (await startAgent()).createSession();
    const why = new Error('not now');
    await expect(session.send('Hello', { signal: AbortSignal.abort(why) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: why,
    });
    await expectLikeNew(session);
  });

  it('can be aborted by the reader of its stream, and the session can be used again', async () => {
    const session = await (await startAgent()).createSession();
    const controller = new AbortController();
    await expect(readTurn(session, () => controller.abort(), controller.signal)).rejects.toThrow(withCode('ABORTED'));
    expect(session.busy).toBe(false);
    await expectLikeNew(session);
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'of the %s model that is aborted during its prefill has no effect on later replies',
    async (name) => {
      const settings = { name, ...EXACT, contextSize: 4096, batchSize: 128 };
      const session = await (await startAgent(settings)).createSession();
      for (const decodes of variants([0, 1, 2, 4], (each) => each % 2 === 0 && each < 4)) {
        const controller = new AbortController();
        const turn = session.send(LONG_PROMPT, { maxTokens: 100, signal: controller.signal });
        afterDecodes(decodes, () => controller.abort());
        await expect(turn, `after ${decodes} decodes`).rejects.toThrow(withCode('ABORTED'));
      }
      expect(session.messages).toEqual([]);
      expect(await replies(session, ['Hello'], 8)).toEqual(await uncachedReplies(settings, ['Hello'], 8));
    },
  );

  it('whose reader leaves by `break` has no effect on the session', async () => {
    const session = await (await startAgent()).createSession();
    for await (const part of session.stream('Something else', { maxTokens: 50 })) {
      expect(part.type).toBe('text-delta');
      break;
    }
    expect(session.busy).toBe(false);
    await expectLikeNew(session);
  });

  it('is not affected by an abort after its end', async () => {
    const session = await (await startAgent()).createSession();
    const controller = new AbortController();
    await session.send('Hello', { maxTokens: 8, signal: controller.signal });
    controller.abort();
    expect(session.messages).toHaveLength(2);
    await session.send('And now?', { maxTokens: 8 });
    expect(session.messages).toHaveLength(4);
  });

  it('has ended as soon as its `finish` part is read, even if nothing reads the stream further', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const replied: string[] = [];
    for await (const part of session.stream('Hello', { maxTokens: 2 })) {
      if (part.type === 'finish') {
        replied.push((await session.send('And now?', { maxTokens: 2 })).finishReason);
      }
    }
    expect(replied).toEqual(['length']);
    const readToFinish = async (stream: AsyncIterable<{ type: string }>) => {
      const parts = stream[Symbol.asyncIterator]();
      while ((await parts.next()).value.type !== 'finish');
      return parts;
    };
    const streams = [
      await readToFinish(session.stream('Why?', { maxTokens: 2 })),
      await readToFinish(agent.streamComplete('Hello', { maxTokens: 2 })),
    ];
    await agent.setLoras([]);
    expect((await session.send('And now?', { maxTokens: 2 })).finishReason).toBe('length');
    expect(agent.health()).toMatchObject({ activeSessions: 0, heldSequences: 1 });
    const ends = await Promise.all(streams.map((stream) => stream.next()));
    expect(ends.map(({ done }) => done)).toEqual([true, true]);
  });

  it('makes its session reject a second turn with SESSION_BUSY', async () => {
    const session = await (await startAgent()).createSession();
    await readTurn(session, async () => {
      expect(session.busy).toBe(true);
      await expect(session.send('Me too')).rejects.toThrow(withCode('SESSION_BUSY'));
    });
    expect(session.messages).toHaveLength(2);
  });
});
