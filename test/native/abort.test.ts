// An AbortSignal ends its own call with ABORTED and does not affect other calls.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { HeadstartError } from 'llama-headstart';
import {
  type Context,
  type DecodeBatch,
  jsonSchemaToGrammar,
  type LoraAdapter,
  Model,
  type RenderedPrompt,
  SequenceState,
} from 'llama-headstart/native';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { batchOf, captureOf, codeOf, prefill, someTokens, temporaryDirectory } from '../helpers/native.js';

const directory = await temporaryDirectory();
const path = microModel('dense');
let model: Model;
let context: Context;
let state: SequenceState;
const tokens = someTokens(500, 200);

beforeAll(async () => {
  model = await Model.load({ path });
  context = await model.createContext({ kvCells: 1024, batchSize: 512 });
  state = await captureOf(context, tokens);
});
afterAll(() => model?.close());

const errorOf = async (work: () => Promise<unknown>): Promise<HeadstartError> => {
  const error = await work().catch((each: unknown) => each);
  if (!HeadstartError.isInstance(error)) throw error;
  return error;
};

describe('a model load', () => {
  it("does not start if the signal has already fired, and the error's cause is the signal's reason", async () => {
    const reason = new Error('changed my mind');
    const seen: number[] = [];
    const signal = AbortSignal.abort(reason);
    const error = await errorOf(() => Model.load({ path, signal, onProgress: (at) => seen.push(at) }));
    expect([error.code, error.cause, seen]).toEqual(['ABORTED', reason, []]);
  });

  it('stops when its signal fires, and the next load works', async () => {
    for (let round = 0; round < 20; round++) {
      const abort = new AbortController();
      const load = codeOf(async () => (await Model.load({ path, signal: abort.signal })).close());
      abort.abort();
      expect(await load).toBe('ABORTED');
    }
    await (await Model.load({ path })).close();
  });

  it('can be aborted by its own onProgress callback', async () => {
    const abort = new AbortController();
    const load = codeOf(() => Model.load({ path, signal: abort.signal, onProgress: () => abort.abort() }));
    expect(await load).toBe('ABORTED');
  });

  it('rejects with the error that onProgress throws', async () => {
    const mistake = new TypeError('a mistake in the listener');
    await expect(
      Model.load({
        path,
        onProgress: () => {
          throw mistake;
        },
      }),
    ).rejects.toBe(mistake);
  });

  it('reports progress up to 1, in order, before it resolves', async () => {
    const seen: number[] = [];
    const loaded = await Model.load({ path, onProgress: (at) => seen.push(at) });
    expect(seen.at(-1)).toBe(1);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    await loaded.close();
  });
});

describe('a decode', () => {
  it('does not start if the signal has already fired', async () => {
    await prefill(context, 0, tokens.subarray(0, 10));
    const decode = errorOf(() => context.decode({ ...batchOf(0, 10, tokens), signal: AbortSignal.abort('late') }));
    expect((await decode).code).toBe('ABORTED');
    expect((await decode).cause).toBe('late');
    expect((await context.positionRange(0)).last).toBe(9);
    await context.clear();
  });

  it('is removed from the queue when its signal fires, and other calls continue', async () => {
    const abort = new AbortController();
    const running = context.decode(batchOf(0, 0, tokens));
    const waiting = codeOf(() => context.decode({ ...batchOf(0, 500, tokens.subarray(0, 5)), signal: abort.signal }));
    const later = context.positionRange(0);
    abort.abort();
    await running;
    // The waiting decode is so short that it may end before the signal fires.
    expect((await later).last).toBe((await waiting) === 'ABORTED' ? 499 : 504);
    await context.clear();
  });
});

describe('a running decode', () => {
  const kinds = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;

  it.each(kinds)('of one sequence of a %s model can be aborted, and the sequence can be continued', async (kind) => {
    const subject = await Model.load({ path: microModel(kind) });
    const options = { kvCells: 4096, batchSize: 2048, maxSequences: 2 };
    const aborted = await subject.createContext(options);
    const cold = await subject.createContext(options);
    const long = someTokens(2000, subject.info.vocabulary.size);

    const error = await abortInside(aborted, batchOf(0, 0, long));
    expect(error.sequences).toEqual([0]);
    const { last } = await aborted.positionRange(0);
    expect(last).toBeLessThan(long.length - 1);
    if (kind === 'recurrent' || kind === 'hybrid') {
      expect(last).toBe(-1);
    }

    // The sequence continues from its end. Its logits have the same bits as in a cold run that decodes the same
    // batches.
    const from = last + 1;
    const end = from + 100;
    if (from > 0) await cold.decode(batchOf(0, 0, long.subarray(0, from)));
    for (const each of [aborted, cold]) {
      await each.decode(batchOf(0, from, long.subarray(from, end)));
    }
    expect(await aborted.logits(99)).toEqual(await cold.logits(99));
    await subject.close();
  });

  it('of two sequences runs to its end even if its signal fires', async () => {
    const both = someTokens(1000, model.info.vocabulary.size);
    const wide = await model.createContext({ kvCells: 4096, batchSize: 2048, maxSequences: 2 });
    for (let round = 0; round < 10; round++) {
      const abort = new AbortController();
      const decoding = codeOf(() =>
        wide.decode({
          tokens: both,
          positions: both.map((_, index) => index >> 1),
          sequences: both.map((_, index) => index & 1),
          outputs: new Uint8Array(both.length),
          signal: abort.signal,
        }),
      );
      await new Promise((resolve) => setTimeout(resolve, round));
      abort.abort();
      const { last } = await wide.positionRange(0);
      expect(last).toBe((await decoding) === 'none' ? 499 : -1);
      await wide.clear();
    }
    await wide.close();
  });
});

/** Starts and aborts a decode again and again, each time a little later, until an abort stops a running decode. */
async function abortInside(target: Context, batch: DecodeBatch): Promise<HeadstartError> {
  for (let delay = 0; ; delay = (delay + 1) % 50) {
    const abort = new AbortController();
    const outcome = target.decode({ ...batch, signal: abort.signal }).then(
      () => undefined,
      (error: unknown) => error as HeadstartError,
    );
    await new Promise((resolve) => setTimeout(resolve, delay));
    abort.abort();
    const error = await outcome;
    if (error?.sequences !== undefined) {
      expect(error.code).toBe('ABORTED');
      return error;
    }
    await target.clear();
  }
}

describe('a file', () => {
  it('is not written if the signal has already fired, not even in part', async () => {
    const target = join(directory, 'aborted.kv');
    expect(await codeOf(() => state.writeFile(target, {}, { signal: AbortSignal.abort() }))).toBe('ABORTED');
    expect(existsSync(target)).toBe(false);
  });

  it('is written completely or not at all when the signal fires', async () => {
    for (let round = 0; round < 20; round++) {
      const target = join(directory, `race-${round}.kv`);
      const abort = new AbortController();
      const written = codeOf(() => state.writeFile(target, {}, { signal: abort.signal }));
      abort.abort();
      const code = await written;
      expect(existsSync(target)).toBe(code === 'none');
      if (code === 'none') (await SequenceState.readFile(target)).close();
    }
  });

  it('is not read if the signal has already fired', async () => {
    const target = join(directory, 'whole.kv');
    await state.writeFile(target);
    const signal = AbortSignal.abort('why');
    expect((await errorOf(() => SequenceState.readFile(target, { signal }))).cause).toBe('why');
    const abort = new AbortController();
    (await SequenceState.readFile(target, { signal: abort.signal })).close();
    abort.abort();
  });
});

describe('calls that cannot be interrupted', () => {
  const words = 'some words '.repeat(2000);
  const calls: [string, (signal: AbortSignal) => Promise<unknown>][] = [
    ['tokenizing', (signal) => model.tokenize(words, { signal })],
    ['detokenizing', (signal) => model.detokenize(tokens, { signal })],
    ['rendering', (signal) => model.render(conversation, { signal })],
    ['parsing a reply', (signal) => model.parseReply({ rendered, text: 'Hello' }, { signal })],
    ['converting a schema', (signal) => jsonSchemaToGrammar({ type: 'object' }, { signal })],
    ['creating a sampler', async (signal) => (await model.createSampler({ grammar }, { signal })).close()],
    ['creating a context', (signal) => model.createContext({ kvCells: 256, signal })],
    ['a capture', (signal) => context.captureSequence(0, tokens, { signal })],
    ['loading an adapter', async (signal) => model.loadLora(await adapter, { signal })],
    ['hashing an adapter', (signal) => loaded.contentHash({ signal })],
  ];
  const conversation = {
    messages: [{ role: 'user', content: 'Hi' }],
    chatTemplate: '{% for m in messages %}{{ m.content }}{% endfor %}',
  };
  const grammar = 'root ::= [a-z]+';
  let rendered: RenderedPrompt;
  let loaded: LoraAdapter;
  const adapter = Model.load({ path }).then(async (first) => {
    const { embeddingSize } = first.info;
    await first.close();
    return writeLora(directory, 'adapter', {}, embeddingSize);
  });

  let capturesBefore = 0;

  beforeEach(async () => {
    await context.clear();
    capturesBefore = context.counters().captures;
    loaded = await model.loadLora(await adapter); // a new adapter, because an adapter remembers its hash
    rendered = await model.render(conversation);
  });

  it.each(calls)(
    "%s does not start if the signal has already fired, and the error's cause is the signal's reason",
    async (name, call) => {
      if (name === 'a capture') await prefill(context, 0, tokens);
      const before = context.counters();
      const error = await errorOf(() => call(AbortSignal.abort('late')));
      expect([error.code, error.cause]).toEqual(['ABORTED', 'late']);
      expect(context.counters()).toEqual(before);
    },
  );

  it.each(calls)(
    '%s ends with ABORTED if the signal fires during the call, and works the next time',
    async (name, call) => {
      if (name === 'a capture') await prefill(context, 0, tokens);
      const abort = new AbortController();
      const outcome = errorOf(() => call(abort.signal));
      // A call about an adapter first waits for the file of the adapter.
      if (name.includes('adapter')) await adapter;
      abort.abort('changed my mind');
      const error = await outcome;
      expect([error.code, error.cause]).toEqual(['ABORTED', 'changed my mind']);
      await call(new AbortController().signal);
    },
  );

  it.each(calls)('%s does nothing if it is aborted in the queue, and later calls run', async (name, call) => {
    const before = [prefill(context, 0, tokens), model.tokenize('some words '.repeat(50_000))];
    const abort = new AbortController();
    const outcome = errorOf(() => call(abort.signal));
    const later = call(new AbortController().signal);
    // A call about an adapter first waits for the file of the adapter.
    if (name.includes('adapter')) await adapter;
    abort.abort('changed my mind');
    expect((await outcome).code).toBe('ABORTED');
    await later;
    await Promise.all(before);
    expect(context.counters().captures - capturesBefore).toBe(name === 'a capture' ? 1 : 0);
  });

  it('refuse a `signal` that is not an AbortSignal', async () => {
    for (const signal of [5, {}, null, { aborted: false }] as never[]) {
      for (const [, call] of calls) {
        expect(await codeOf(() => call(signal))).toBe('INVALID_ARGUMENT');
      }
    }
  });
});

const saved = join(directory, 'restored.kv');

describe.each([
  ['a restore', (signal?: AbortSignal) => context.restoreSequence(0, state, { signal })],
  ['a restore by llama.cpp itself', (signal?: AbortSignal) => context.loadFile(0, saved, { signal })],
])('%s', (_, restore) => {
  beforeAll(async () => {
    if (!existsSync(saved)) await state.writeFile(saved);
  });
  beforeEach(() => context.clear());

  it("does not start if the signal has already fired, and the error's cause is the signal's reason", async () => {
    const error = await errorOf(() => restore(AbortSignal.abort('late')));
    expect([error.code, error.cause]).toEqual(['ABORTED', 'late']);
  });

  it('does nothing if it is aborted in the queue, and later calls run', async () => {
    const abort = new AbortController();
    const before = [prefill(context, 0, tokens), context.removeSequence(0)];
    const aborted = codeOf(() => restore(abort.signal));
    const later = restore();
    abort.abort();
    await Promise.all(before);
    expect(await aborted).toBe('ABORTED');
    await later;
    expect(await context.positionRange(0)).toEqual({ first: 0, last: tokens.length - 1 });
  });

  it('leaves its sequence either empty or completely restored, whenever the signal fires', async () => {
    for (let round = 0; round < 100; round++) {
      const abort = new AbortController();
      const restored = codeOf(() => restore(abort.signal));
      for (let turns = 0; turns < round % 5; turns++) await new Promise(setImmediate);
      abort.abort();
      const last = (await restored) === 'ABORTED' ? -1 : tokens.length - 1;
      expect((await context.positionRange(0)).last).toBe(last);
      await context.removeSequence(0);
    }
  });
});
