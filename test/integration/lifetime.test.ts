// Ends of every kind: abort, break, close, limits. Afterwards what is left works as before.
import type {
  AgentServer,
  ChatMessage,
  HeadstartError,
  Session,
  SessionOptions,
  StreamPart,
  ToolDefinition,
} from 'llama-headstart';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXACT, replies, startAgent, uncachedReplies } from '../helpers/agents.js';
import { Lab, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { numberedPrompt, SYSTEM_PROMPT } from '../helpers/prompts.js';

const code = (expected: HeadstartError['code']) => expect.objectContaining({ name: 'HeadstartError', code: expected });

const LONG_PROMPT = Array.from({ length: 25 }, (_, index) => numberedPrompt(index)).join('\n');

/** Reads a turn, and calls `at` after its first piece of text. */
async function readUntilText(session: Session, at: () => unknown, signal?: AbortSignal): Promise<StreamPart[]> {
  const parts: StreamPart[] = [];
  for await (const part of session.stream('Hello', { maxTokens: 200, ...(signal && { signal }) })) {
    parts.push(part);
    if (parts.length === 1) {
      await at();
    }
  }
  return parts;
}

/** The session says what a new one would. */
async function expectUnharmed(session: Session): Promise<void> {
  expect(session.messages).toEqual([]);
  expect(await replies(session, ['Hello', 'And now?'], 8)).toEqual(await uncachedReplies({}, ['Hello', 'And now?'], 8));
}

describe('a turn', () => {
  it('that was aborted before it began changes nothing', async () => {
    const session = await (await startAgent()).createSession();
    const why = new Error('not now');
    await expect(session.send('Hello', { signal: AbortSignal.abort(why) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: why,
    });
    await expectUnharmed(session);
  });

  it('that was aborted from its own loop ends there, and the session can be used again', async () => {
    const session = await (await startAgent()).createSession();
    const controller = new AbortController();
    await expect(readUntilText(session, () => controller.abort(), controller.signal)).rejects.toThrow(code('ABORTED'));
    expect(session.busy).toBe(false);
    await expectUnharmed(session);
  });

  it.each(['dense', 'sliding-window', 'recurrent', 'hybrid'] as const)(
    'of a %s model that was aborted while its prompt was read starts again as if it had never been',
    async (name) => {
      const session = await (await startAgent({ name, ...EXACT, contextSize: 4096 })).createSession();
      for (const delay of [0, 2, 5, 10, 20]) {
        const controller = new AbortController();
        const turn = session
          .send(LONG_PROMPT, { maxTokens: 100, signal: controller.signal })
          .catch((error: unknown) => error);
        await new Promise((resolve) => setTimeout(resolve, delay));
        controller.abort();
        expect(await turn).toMatchObject({ code: 'ABORTED' });
      }
      expect(session.messages).toEqual([]);
      expect(await replies(session, ['Hello'], 8)).toEqual(
        await uncachedReplies({ name, ...EXACT, contextSize: 4096 }, ['Hello'], 8),
      );
    },
  );

  it('that nobody reads on from lets others have its sequence, and goes on from where it was', async () => {
    const agent = await startAgent({ nSeqMax: 1, ...EXACT });
    const session = await agent.createSession();
    let text = '';
    let others = 0;
    for await (const part of session.stream('Hello', { maxTokens: 12 })) {
      text += part.type === 'text-delta' ? part.text : '';
      if (others++ === 2) {
        const other = await agent.createSession();
        await other.send('Something else', { maxTokens: 4 });
        await other.close();
      }
    }
    expect([text]).toEqual(await uncachedReplies({ ...EXACT }, ['Hello'], 12));
  });

  it('says the same when its caller changes the tools array meanwhile', async () => {
    const tools: ToolDefinition[] = [{ name: 'look', description: 'Look around' }];
    const session = await (await startAgent({ ...EXACT })).createSession({ tools });
    tools.push({ name: 'jump' });
    tools[0] = { name: 'run' };
    const expected = await uncachedReplies(
      { ...EXACT, tools: [{ name: 'look', description: 'Look around' }] },
      ['Hello'],
      8,
    );
    expect(await replies(session, ['Hello'], 8)).toEqual(expected);
  });

  it('that was left by `break` leaves no trace', async () => {
    const session = await (await startAgent()).createSession();
    for await (const part of session.stream('Something else', { maxTokens: 50 })) {
      expect(part.type).toBe('text-delta');
      break;
    }
    expect(session.busy).toBe(false);
    await expectUnharmed(session);
  });

  it('is not disturbed by an abort after its end', async () => {
    const session = await (await startAgent()).createSession();
    const controller = new AbortController();
    await session.send('Hello', { maxTokens: 8, signal: controller.signal });
    controller.abort();
    expect(session.messages).toHaveLength(2);
    await session.send('And now?', { maxTokens: 8 });
    expect(session.messages).toHaveLength(4);
  });

  it('is over when its last part comes: whoever stops reading there holds up nobody', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const replied: string[] = [];
    for await (const part of session.stream('Hello', { maxTokens: 2 })) {
      if (part.type === 'finish') {
        replied.push((await session.send('And now?', { maxTokens: 2 })).finishReason);
      }
    }
    expect(replied).toEqual(['length']);
    const read = async (stream: AsyncGenerator<{ type: string }>) => {
      let part: { type: string };
      do {
        part = (await stream.next()).value;
      } while (part.type !== 'finish');
      return stream; // and is not asked for more
    };
    const signal = AbortSignal.abort();
    const left = [
      await read(session.stream('Why?', { maxTokens: 2 })),
      await read(agent.streamComplete('Hello', { maxTokens: 2 })),
      await read(session.stream('Why?', { signal })),
      await read(agent.streamComplete('Hello', { signal })),
    ];
    await agent.setLoras([]);
    expect((await session.send('And now?', { maxTokens: 2 })).finishReason).toBe('length');
    expect(agent.health()).toMatchObject({ activeSessions: 0, heldSequences: 1 });
    const ends = await Promise.allSettled(left.map((stream) => stream.next()));
    expect(ends.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
  });

  it('is the only one of its session', async () => {
    const session = await (await startAgent()).createSession();
    await readUntilText(session, async () => {
      expect(session.busy).toBe(true);
      await expect(session.send('Me too')).rejects.toThrow(code('SESSION_BUSY'));
    });
    expect(session.messages).toHaveLength(2);
  });

  it('refuses arguments that are none, and the session stays usable', async () => {
    const session = await (await startAgent()).createSession();
    const bad: [unknown, unknown][] = [
      [undefined, {}],
      [7, {}],
      ['Hello', { maxTokens: 0 }],
      ['Hello', { maxTokens: 1.5 }],
      ['Hello', { maxTokens: '8' }],
      ['Hello', { signal: 'stop' }],
      ['Hello', { max_tokens: 8 }],
      ['Hello', null],
    ];
    for (const [message, options] of bad) {
      await expect(session.send(message as string, options as object)).rejects.toThrow(code('INVALID_ARGUMENT'));
    }
    await expectUnharmed(session);
  });

  it('is not held up by what else is asked for with arguments that are none', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    for (const options of [{ signal: 5 }, null, { preserveRecent: -1 }]) {
      await expect(session.compact(options as never)).rejects.toThrow(code('CONFIG_INVALID'));
    }
    await expect(session.save('x.json', { signal: 5 } as never)).rejects.toThrow(code('INVALID_ARGUMENT'));
    for (const options of [null, { messages: [] }]) {
      await expect(agent.restoreSession('x.json', options as never)).rejects.toThrow(code('CONFIG_INVALID'));
    }
    await expect(agent.setLoras([], { signal: 5 } as never)).rejects.toThrow(code('INVALID_ARGUMENT'));
    await expectUnharmed(session);
  });

  it('takes an empty message, and text that is not well-formed', async () => {
    const agent = await startAgent();
    for (const message of ['', '\ud800', 'half a \udc00 pair', '\0', '<|im_start|>']) {
      const session = await agent.createSession({ systemPrompt: `As written: ${message}` });
      expect((await session.send(message, { maxTokens: 4 })).usage.outputTokens).toBe(4);
      await session.close();
    }
  });

  it('does not fit if its conversation is longer than the context, and says so; a shorter one does', async () => {
    const session = await (await startAgent({ contextSize: 512 })).createSession();
    await expect(session.send('word '.repeat(600))).rejects.toThrow(code('CONTEXT_FULL'));
    await expect(session.send('word '.repeat(200_000))).rejects.toThrow(code('CONTEXT_FULL')); // a megabyte
    await expect(session.send('x'.repeat(1_000_000))).rejects.toThrow(code('TEXT_UNBREAKABLE'));
    await expectUnharmed(session);
  });

  it('ends with `length` where the context ends', async () => {
    const session = await (await startAgent({ contextSize: 256 })).createSession();
    const { finishReason, usage } = await session.send('Hello');
    expect(finishReason).toBe('length');
    expect(usage.inputTokens + usage.outputTokens).toBe(256);
  });
});

describe('closing a session', () => {
  it('from its own loop ends the turn with CLOSED', async () => {
    const session = await (await startAgent()).createSession();
    await expect(readUntilText(session, () => session.close())).rejects.toThrow(code('CLOSED'));
    await expect(session.send('Hello')).rejects.toThrow(code('CLOSED'));
  });

  it('while a turn computes ends it with CLOSED', async () => {
    const session = await (await startAgent()).createSession();
    const turn = session.send('Hello', { maxTokens: 500 });
    await Promise.all([expect(turn).rejects.toThrow(code('CLOSED')), session.close()]);
  });

  it('does not wait for who does not read on', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const session = await agent.createSession();
    const stream = session.stream('Hello', { maxTokens: 50 });
    await stream.next();
    await session.close();
    await expectUnharmed(await agent.createSession()); // the one sequence is free
    await expect(stream.next()).resolves.toMatchObject({ value: { type: 'finish', finishReason: 'error' } });
    await expect(stream.next()).rejects.toThrow(code('CLOSED'));
  });

  it('can be done twice', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await Promise.all([session.close(), session.close()]);
    await session.close();
    expect(session.closed).toBe(true);
    await expectUnharmed(await agent.createSession());
  });
});

describe('closing an agent', () => {
  const closings = async (agent: AgentServer, work: Promise<unknown>[]) => {
    const outcomes = Promise.allSettled(work);
    await agent.close();
    return (await outcomes).map((outcome) => (outcome.status === 'rejected' ? outcome.reason.code : 'done'));
  };

  it('ends all turns with CLOSED', async () => {
    const agent = await startAgent();
    const sessions = [await agent.createSession(), await agent.createSession(), await agent.createSession()];
    const turns = sessions.map((session) => session.send('Hello', { maxTokens: 800 }));
    expect(await closings(agent, turns)).toEqual(['CLOSED', 'CLOSED', 'CLOSED']);
  });

  it('from the loop of a turn ends that turn', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await expect(readUntilText(session, () => agent.close())).rejects.toThrow(code('CLOSED'));
  });

  it('in the middle of a fork leaves no session open', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    expect(await closings(agent, [session.fork()])).toEqual(['CLOSED']);
    expect(agent.health().openSessions).toBe(0);
  });

  it('sends away who waits for a session, in the middle of a prefill or for a free sequence', async () => {
    const agent = await startAgent({ nSeqMax: 2, contextSize: 8192, systemPrompt: LONG_PROMPT });
    const opening = Array.from({ length: 5 }, () => agent.createSession());
    expect(await closings(agent, opening)).toEqual(['CLOSED', 'CLOSED', 'CLOSED', 'CLOSED', 'CLOSED']);
  });

  it('ends a prefill in the middle', async () => {
    const lab = await Lab.open({ path: microModel('dense'), kvCells: 8192, batchSize: 64 });
    onTestFinished(() => lab.close());
    const template = someTokens(6000, 1);
    const starting = lab.start(template);
    const refused = expect(starting).rejects.toThrow(code('CLOSED'));
    while (lab.context.counters().decodes < 2) {
      await new Promise(setImmediate);
    }
    await lab.prefixCache.close();
    await refused;
    expect(lab.context.counters().decodedTokens).toBeLessThan(template.length);
  });

  it('can be done twice, and nothing opens after', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    await Promise.all([agent.close(), agent.close()]);
    await agent.close();
    await expect(agent.createSession()).rejects.toThrow(code('CLOSED'));
    await expect(session.send('Hello')).rejects.toThrow(code('CLOSED'));
    await session.close();
  });

  it('leaves the statistics readable', async () => {
    const agent = await startAgent();
    await agent.createSession();
    await agent.close();
    expect(agent.getTemplateCacheStats().misses).toBe(1);
  });
});

describe('opening a session', () => {
  it('with an aborted signal opens none', async () => {
    const agent = await startAgent();
    const why = new Error('not now');
    await expect(agent.createSession({ signal: AbortSignal.abort(why) })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: why,
    });
    expect(agent.getTemplateCacheStats()).toMatchObject({ hits: 0, misses: 0 });
  });

  it('can be aborted in the middle of its prefill, and who waits for the same template gets it', async () => {
    const agent = await startAgent({ contextSize: 8192, systemPrompt: LONG_PROMPT });
    const controller = new AbortController();
    const aborted = agent.createSession({ signal: controller.signal });
    const patient = agent.createSession();
    controller.abort();
    await expect(aborted).rejects.toThrow(code('ABORTED'));
    expect((await patient).report.cache).toBe('miss');
    expect(agent.getTemplateCacheStats()).toMatchObject({ misses: 1, hits: 0, residentTemplates: 1 });
  });

  it('takes its options as they are then: what becomes of them later changes nothing', async () => {
    const options: SessionOptions = { tools: [{ name: 'look' }], toolChoice: 'none', compaction: { threshold: 0.9 } };
    const session = await (await startAgent()).createSession(options);
    Object.assign(options, { toolChoice: 'required', maxSteps: 'many', tools: [] });
    Object.assign(options.compaction as object, { threshold: 0.1 });
    const parts: string[] = [];
    for await (const { type } of session.stream('Look', { maxTokens: 4 })) {
      parts.push(type);
    }
    expect(new Set(parts)).toEqual(new Set(['text-delta', 'finish']));
    expect(() => (session.messages as ChatMessage[]).push({ role: 'user', content: 'Hello' })).toThrow(TypeError);
    expect(session.messages).toHaveLength(2);
  });

  it('refuses a template that leaves no room for a conversation', async () => {
    const agent = await startAgent({ contextSize: 256 });
    await expect(agent.createSession({ systemPrompt: LONG_PROMPT })).rejects.toThrow(code('CONTEXT_FULL'));
    await expectUnharmed(await agent.createSession());
  });

  it('refuses options that are none', async () => {
    const agent = await startAgent();
    const circular: Record<string, unknown> = {};
    circular.self = circular;
    const tools: unknown[] = [
      'find_part',
      [null],
      [{}],
      [{ name: '' }],
      [{ name: 'a' }, { name: 'a' }],
      [{ name: 'a', description: 7 }],
      [{ name: 'a', parameters: 'none' }],
      [{ name: 'a', parameters: circular }],
      [{ name: 'a', parameters: { maximum: 7n } }],
    ];
    for (const each of tools) {
      const options = { tools: each as ToolDefinition[] };
      await expect(agent.createSession(options), String(each)).rejects.toThrow(code('CONFIG_INVALID'));
    }
    for (const options of [{ systemPrompt: 7 }, { templateCache: 1 }, { signal: {} }, { system: 'a' }, 'a', null]) {
      await expect(agent.createSession(options as object)).rejects.toThrow(code('CONFIG_INVALID'));
    }
    await expectUnharmed(await agent.createSession());
  });
});

describe('starting an agent', () => {
  it.each([
    ['MODEL_NOT_FOUND', { source: '/nowhere/model.gguf' }],
    ['MODEL_NOT_FOUND', { source: import.meta.dirname }],
    ['MODEL_INVALID', { source: import.meta.filename }],
    ['CONFIG_INVALID', { kvCells: 512, contextSize: 1024 }],
    ['CONFIG_INVALID', { nSeqMax: 200, maxResidentTemplates: 57 }],
    ['ABORTED', { signal: AbortSignal.abort() }],
  ] as const)('fails with %s for %o', async (expected, settings) => {
    await expect(startAgent(settings)).rejects.toThrow(code(expected));
  });

  it('without a tokeniser or chat template says which is missing when a session is opened', async () => {
    const agent = await startAgent({ source: microModel('no-tokenizer') });
    await expect(agent.createSession()).rejects.toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^NO_(CHAT_TEMPLATE|TOKENIZER)$/) }),
    );
  });

  it('reports the progress of its load, up to 1', async () => {
    const fractions: number[] = [];
    const agent = await startAgent({ onProgress: ({ fraction }) => fractions.push(fraction) });
    expect(fractions.at(-1)).toBe(1);
    expect(agent.contextSize).toBe(1024);
    expect(SYSTEM_PROMPT.length).toBeGreaterThan(0);
  });
});
