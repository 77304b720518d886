// An AbortSignal ends what it was given to with ABORTED, and nothing else.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Context, HeadstartError, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  it('does not begin with a signal that has fired, and passes its reason on', async () => {
    const reason = new Error('changed my mind');
    const seen: number[] = [];
    const signal = AbortSignal.abort(reason);
    const error = await errorOf(() => Model.load({ path, signal, onProgress: (at) => seen.push(at) }));
    expect([error.code, error.cause, seen]).toEqual(['ABORTED', reason, []]);
  });

  it('ends when its signal fires, and the next load works', async () => {
    for (let round = 0; round < 20; round++) {
      const abort = new AbortController();
      const load = codeOf(async () => (await Model.load({ path, signal: abort.signal })).close());
      abort.abort();
      expect(await load).toBe('ABORTED');
    }
    await (await Model.load({ path })).close();
  });

  it('can be ended from its own progress', async () => {
    const abort = new AbortController();
    const load = codeOf(() => Model.load({ path, signal: abort.signal, onProgress: () => abort.abort() }));
    expect(await load).toBe('ABORTED');
  });

  it('rejects with what its progress listener throws', async () => {
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
  it('does not begin with a signal that has fired', async () => {
    await prefill(context, 0, tokens.subarray(0, 10));
    const decode = errorOf(() => context.decode({ ...batchOf(0, 10, tokens), signal: AbortSignal.abort('late') }));
    expect((await decode).code).toBe('ABORTED');
    expect((await decode).cause).toBe('late');
    expect((await context.positionRange(0)).last).toBe(9);
    await context.clear();
  });

  it('that waits is taken out, and its neighbours go on', async () => {
    const abort = new AbortController();
    const running = context.decode(batchOf(0, 0, tokens));
    const waiting = codeOf(() => context.decode({ ...batchOf(0, 500, tokens.subarray(0, 5)), signal: abort.signal }));
    const behind = context.positionRange(0);
    abort.abort();
    await running;
    // The flag may come too late for a decode as short as this one.
    expect((await behind).last).toBe((await waiting) === 'ABORTED' ? 499 : 504);
    await context.clear();
  });
});

describe('a file', () => {
  it('is not written, and none is left, when the signal has fired', async () => {
    const target = join(directory, 'aborted.kv');
    expect(await codeOf(() => state.writeFile(target, {}, { signal: AbortSignal.abort() }))).toBe('ABORTED');
    expect(existsSync(target)).toBe(false);
  });

  it('is written whole or not at all when the signal fires', async () => {
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

  it('is not read when the signal has fired', async () => {
    const target = join(directory, 'whole.kv');
    await state.writeFile(target);
    const signal = AbortSignal.abort('why');
    expect((await errorOf(() => SequenceState.readFile(target, { signal }))).cause).toBe('why');
    const abort = new AbortController();
    (await SequenceState.readFile(target, { signal: abort.signal })).close();
    abort.abort();
  });
});
