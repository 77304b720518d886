// Nothing that changes the KV state may hit, and nothing that does not may miss.
import { chmod, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentServer, type MessageInput, type StartReport } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import {
  type AgentSettings,
  agentOptions,
  EXACT,
  replies,
  startAgent,
  temporaryDirectory,
  uncachedReplies,
} from '../helpers/agents.js';
import { Lab, type LabOptions, someTokens } from '../helpers/lab.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { inOtherProcess } from '../helpers/processes.js';
import { TOOLS } from '../helpers/prompts.js';

/** One session of an agent of its own on the directory: how it started. */
async function startOn(directory: string, settings: AgentSettings & { tenant?: string } = {}): Promise<StartReport> {
  const { tenant, ...rest } = settings;
  const agent = await startAgent({ cacheDir: directory, ...rest });
  const session = await agent.createSession({ ...(tenant !== undefined && { tenant }) });
  const { report } = session;
  await agent.close();
  return report;
}

const DATED = "{{ 'Today is ' + strftime_now('%Y-%m-%d') + '.\\n' }}";
const CHAT_TEMPLATE = `${DATED}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}`;

describe('an entry serves no start', () => {
  it.each([
    ['of another model of the same shape', {}, { name: 'dense-other' }],
    ['of another quantisation', {}, { name: 'dense-quantised' }],
    ['with another K cache type', {}, { keyType: 'q8_0' }],
    ['with another V cache type', {}, { valueType: 'q8_0' }],
    ['in another layout', {}, { kvLayout: 'split' }],
    ['in split streams of another number', { kvLayout: 'split' }, { kvLayout: 'split', nSeqMax: 3 }],
    ['with flash attention off', {}, { flashAttention: false }],
    ['with scaled RoPE', {}, { ropeScaling: 'yarn', ropeFrequencyScale: 0.5 }],
    [
      'with RoPE scaled another way',
      { ropeScaling: 'linear', ropeFrequencyScale: 0.5 },
      { ropeScaling: 'yarn', ropeFrequencyScale: 0.5 },
    ],
    ['with another RoPE base', {}, { ropeFrequencyBase: 500_000 }],
    ['with another chat template', {}, { chatTemplate: CHAT_TEMPLATE }],
    ['of another tenant', {}, { tenant: 'b' }],
    ['of no tenant, where a tenant made it', { tenant: 'a' }, {}],
    ['of another tenant, where a tenant made it', { tenant: 'a' }, { tenant: 'b' }],
    [
      'with so many cells that other RoPE factors serve',
      { name: 'long-rope', contextSize: 512, kvCells: 1024 },
      { name: 'long-rope', contextSize: 512, kvCells: 2048 },
    ],
    [
      'with all cells of a sliding window',
      { name: 'sliding-window' },
      { name: 'sliding-window', fullSlidingWindow: true },
    ],
  ] as [string, AgentSettings, AgentSettings][])('%s', async (_, one, other) => {
    const directory = await temporaryDirectory();
    const first = await startOn(directory, one);
    const second = await startOn(directory, other);
    expect([first.cache, second.cache]).toEqual(['miss', 'miss']);
    expect(second.key).not.toBe(first.key);
    // Both are there, side by side.
    expect((await startOn(directory, one)).source).toBe('disk');
    expect((await startOn(directory, other)).source).toBe('disk');
  });

  it.each([
    { llamaVersion: 'v0.5.1' },
    { ropeFrequencyBase: 12_345 },
    { ropeFrequencyScale: 0.5 },
    { rotationDisabled: '1' },
  ])('of another configuration, exact or nearest: %o', async (components) => {
    const directory = await temporaryDirectory();
    const tokens = someTokens(80, 1);
    const options: LabOptions = { path: microModel('dense'), directory, cache: { reuse: 'nearest' } };
    for (const cache of ['miss', 'hit']) {
      for (const each of [options, { ...options, components }]) {
        const lab = await Lab.open(each);
        expect(await lab.start(tokens)).toMatchObject({ cache });
        await lab.close();
      }
    }
  });

  it('of another tenant as the nearest one, either', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ cacheDir: directory, reuse: 'nearest' });
    await agent.createSession({ tenant: 'a' });
    await agent.flush();
    const other = await agent.createSession({ tenant: 'b', tools: TOOLS });
    expect(other.report).toMatchObject({ cache: 'miss', cachedTokens: 0 });
    const same = await agent.createSession({ tenant: 'a', tools: TOOLS });
    expect(same.report.cache).toBe('prefix');
  });
});

describe('a LoRA adapter', () => {
  it('and its scale are in the key; a change serves nothing that was computed under others', async () => {
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

  it('of scale 0 is none, and a copy of the file is the same', async () => {
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

  it('is taken by an open session from its next turn on', async () => {
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

  it('waits for a turn that runs, and can be aborted while it waits; a bad one changes nothing', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    const [expected] = await uncachedReplies(EXACT, ['Hello'], 8);
    const stream = session.stream('Hello', { maxTokens: 8 });
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
    for await (const part of stream) {
      read(part as never);
    }
    expect(text).toBe(expected); // the whole turn under what it began with
    await waiting;
    const next = await agent.createSession();
    expect(await replies(next, ['Hello'], 8)).toEqual(
      await uncachedReplies({ ...EXACT, loras: [{ source: lora }] }, ['Hello'], 8),
    );
  });

  it('is what a turn computes with that waited for it, though its conversation was in the KV cache', async () => {
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
    const stream = reader.stream('Hello', { maxTokens: 2 });
    await stream.next();
    const changing = agent.setLoras([]); // waits for the stream
    await new Promise(setImmediate);
    const waiting = session.send('And now?', { maxTokens: 16 });
    const file = join(directory, 'saved.json');
    const saving = saved.save(file, { state: true });
    await stream.return();
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

  it('does not wait for who does not read on: that reply goes on with it', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent(EXACT);
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const loras = [{ source: lora, scale: 4 }];
    const session = await agent.createSession();
    const streams = [session.stream('Hello', { maxTokens: 8 }), agent.streamComplete('Hello', { maxTokens: 8 })];
    for (const stream of streams) {
      await stream.next();
    }
    await agent.setLoras(loras);
    for (const stream of streams) {
      const parts: object[] = [];
      for await (const part of stream) {
        parts.push(part);
      }
      expect(parts.at(-1)).toMatchObject({ finishReason: 'length', usage: { outputTokens: 8 } });
    }
    const adapted = await (await startAgent({ ...EXACT, loras })).createSession({ messages: session.messages });
    expect(await replies(session, ['And now?'], 16)).toEqual(await replies(adapted, ['And now?'], 16));
  });

  describe('that waits for a long turn', () => {
    const open = async () => {
      const agent = await startAgent({ contextSize: 8192 });
      const long = await agent.createSession();
      const controller = new AbortController();
      const begin = async () => {
        const options = { sampling: { ignoreEos: true }, signal: controller.signal };
        const turn = expect(long.send('Hello', options)).rejects.toMatchObject({ code: 'ABORTED' });
        const setting = agent.setLoras([]);
        await sleep(50); // it waits for the turn now
        return { turn, setting };
      };
      return { agent, begin, controller };
    };

    it('is waited for as long as `timeoutMs` says, and no longer', async () => {
      const { agent, begin, controller } = await open();
      const session = await agent.createSession();
      const { turn, setting } = await begin();
      const late = { code: 'ABORTED', message: expect.stringMatching(/`timeoutMs` \(20 ms\)/) };
      await expect(session.send('Hello', { timeoutMs: 20 })).rejects.toMatchObject(late);
      await expect(agent.complete('Hello', { timeoutMs: 20 })).rejects.toMatchObject(late);
      controller.abort();
      await Promise.all([turn, setting]);
      expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
    });

    it('is waited for no longer than that behind tools, too', async () => {
      const { agent, begin, controller } = await open();
      let begun: Awaited<ReturnType<typeof begin>> | undefined;
      const execute = async () => {
        begun = await begin();
      };
      const session = await agent.createSession({ tools: [{ name: 'look', execute }] });
      const options = { toolChoice: 'required', maxParallelTools: 1, maxTokens: 60, timeoutMs: 1500 } as const;
      await expect(session.send('Look', options)).rejects.toMatchObject({ code: 'ABORTED' });
      controller.abort();
      await Promise.all([begun?.turn, begun?.setting]);
      expect(begun).toBeDefined();
    });
  });

  it('waits for nobody whose reader stopped, left, and came back for another turn', async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent();
    const lora = await writeLora(directory, 'one', { seed: 1 }, agent.model.info.embeddingSize);
    const session = await agent.createSession();
    for await (const _ of session.stream('Hello', { maxTokens: 8 })) {
      await sleep(1500); // others may have its sequence, and its place
      break;
    }
    await session.send('And now?', { maxTokens: 4 });
    await agent.setLoras([{ source: lora }]);
    await session.send('And now?', { maxTokens: 4 });
  });

  it('holds up nobody for ever, where sessions take turns on one sequence', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    const [one, other] = [await agent.createSession(), await agent.createSession()];
    await replies(one, ['Hello'], 2); // and has the sequence
    const reading = other.send('word '.repeat(200), { maxTokens: 2 });
    const changing = agent.setLoras([]); // waits for that turn, which has no sequence yet
    await new Promise(setImmediate);
    const waiting = one.send('And now?', { maxTokens: 2 });
    await Promise.all([reading, changing, waiting]);
  });
});

describe('a date in the template', () => {
  it('is remembered for the local calendar day only', async () => {
    const zone = process.env.TZ;
    const directory = await temporaryDirectory();
    const settings = { cacheDir: directory, chatTemplate: CHAT_TEMPLATE };
    try {
      process.env.TZ = 'Etc/GMT+12'; // 26 hours lie between these two: never the same day
      const agent = await startAgent(settings); // which renders its template: not in a third zone's day
      const [west, again] = [await agent.createSession(), await agent.createSession()];
      process.env.TZ = 'Etc/GMT-14';
      const east = await agent.createSession();
      expect([west, again, east].map(({ report }) => report.source)).toEqual(['prefill', 'resident', 'prefill']);
      expect(east.report.key).not.toBe(west.report.key);
      const { usage } = await east.send('Hello', { maxTokens: 1 });
      expect(usage.cachedInputTokens).toBe(east.report.templateTokens);
      expect(agent.getTemplateCacheStats().prefixMismatches).toBe(0);
      await agent.close();
      // What was learned of the chat template still finds the right place.
      const restarted = await startAgent(settings);
      expect((await restarted.createSession()).report).toMatchObject({ source: 'disk', key: east.report.key });
    } finally {
      process.env.TZ = zone;
      if (zone === undefined) {
        delete process.env.TZ;
      }
    }
  });
});

describe('tools of servers', () => {
  const listed = ['find', 'add', 'list'].map((name) => ({ name, description: `To ${name}`, server: 'notes' }));
  const other = { name: 'now', description: 'The time', server: 'clock' };

  it('hit in whatever order they were listed, and make the same prompt', async () => {
    const agent = await startAgent();
    const one = await agent.createSession({ tools: [...TOOLS, ...listed, other] });
    const two = await agent.createSession({ tools: [other, ...TOOLS, ...[...listed].reverse()] });
    expect(two.report).toMatchObject({ source: 'resident', key: one.report.key });
    const { usage } = await two.send('Hello', { maxTokens: 1 });
    expect(usage.cachedInputTokens).toBe(two.report.templateTokens);
  });

  it('keep their order with `stableTools` off; your own always do', async () => {
    const agent = await startAgent({ stableTools: false });
    const one = await agent.createSession({ tools: [...listed, other] });
    expect((await agent.createSession({ tools: [other, ...listed] })).report.key).not.toBe(one.report.key);
    const stable = await startAgent();
    const own = await stable.createSession({ tools: TOOLS });
    expect((await stable.createSession({ tools: [...TOOLS].reverse() })).report.key).not.toBe(own.report.key);
  });
});

describe('a cache directory', () => {
  it('is the one of the option, else of LLAMA_HEADSTART_CACHE_DIR, else .cache/templates', async () => {
    const cwd = await temporaryDirectory();
    const { model, ...rest } = agentOptions();
    const { cacheDir: _, ...unset } = model;
    const found = async (cacheDir: string | undefined, named: string) => {
      const options = { ...rest, model: { ...unset, ...(cacheDir !== undefined && { cacheDir }) } };
      const { after } = await inOtherProcess('agent', { options }, { cwd, env: { LLAMA_HEADSTART_CACHE_DIR: named } });
      expect(after).toMatchObject({ misses: 1, saves: 1, entries: 1 });
      const all = await readdir(cwd, { recursive: true });
      const entries = all.filter((name) => name.endsWith('.kv')).map(dirname);
      await Promise.all((await readdir(cwd)).map((name) => rm(join(cwd, name), { recursive: true })));
      return entries;
    };
    expect(await found(undefined, '')).toEqual([join('.cache', 'templates')]);
    expect(await found(undefined, join(cwd, 'named'))).toEqual(['named']);
    expect(await found(join(cwd, 'own'), join(cwd, 'named'))).toEqual(['own']);
  });

  it('that others can write is refused with an explanation, unless it is allowed', async () => {
    const directory = join(await temporaryDirectory(), 'shared');
    await mkdir(directory);
    for (const mode of [0o777, 0o770, 0o1777]) {
      await chmod(directory, mode);
      await expect(AgentServer.initialize(agentOptions({ cacheDir: directory }))).rejects.toMatchObject({
        code: 'CACHE_DIR_SHARED',
        message: expect.stringMatching(/other users can write to .*its mode is .*chmod go-w.*allowSharedDirectory/),
      });
    }
    expect((await startOn(directory, { allowSharedDirectory: true })).cache).toBe('miss');
    await chmod(directory, 0o755); // others may look: files are 0600
    expect((await startOn(directory)).source).toBe('disk');
  });

  it('names no tenant', async () => {
    const directory = await temporaryDirectory();
    await startOn(directory, { tenant: 'acme-corporation' });
    for (const name of await readdir(directory)) {
      expect((await readFile(join(directory, name))).includes('acme')).toBe(false);
    }
  });
});
