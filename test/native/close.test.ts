// close() can be called at any time and any number of times. Afterwards, calls of other methods are refused.
import type { HeadstartError } from 'llama-headstart';
import { type Context, Model, type SequenceState } from 'llama-headstart/native';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { batchOf, captureOf, codeOf, prefill, someTokens } from '../helpers/native.js';

let model: Model;
let context: Context;
let state: SequenceState;
let tokens: Int32Array;

beforeEach(async () => {
  await model?.close();
  model = await Model.load({ path: microModel('dense') });
  tokens = someTokens(40, model.info.vocabulary.size);
  context = await model.createContext({ kvCells: 4096, batchSize: 2048, maxSequences: 2 });
  state = await captureOf(context, tokens);
});
afterAll(() => model?.close());

describe('after close()', () => {
  it('every method of a context throws CLOSED, but counters() still returns the totals', async () => {
    await context.close();
    const calls: (() => unknown)[] = [
      () => context.decode(batchOf(0, 0, tokens)),
      () => context.logits(0),
      () => context.removeSequence(0),
      () => context.copySequence(0, 1),
      () => context.keepSequence(0),
      () => context.positionRange(0),
      () => context.clear(),
      () => context.captureSequence(0, tokens),
      () => context.restoreSequence(0, state),
      () => context.loadFile(0, '/nowhere'),
    ];
    for (const call of calls) {
      expect(await codeOf(call), String(call)).toBe('CLOSED');
    }
    expect(context.counters().captures).toBe(1);
    expect(context.info.kvCells).toBe(4096);
  });

  it('every method of a model throws CLOSED, but info is still readable', async () => {
    await model.close();
    const calls: (() => unknown)[] = [
      () => model.metadata(),
      () => model.tokenize('a'),
      () => model.detokenize(tokens),
      () => model.tokenToBytes(0),
      () => model.tokenToText(0),
      () => model.isEndOfGeneration(0),
      () => model.controlTokens(),
      () => model.render({ messages: [] }),
      () => model.createContext({}),
    ];
    for (const call of calls) {
      expect(await codeOf(call), String(call)).toBe('CLOSED');
    }
    expect(model.info.architecture).toBe('qwen2');
  });

  it('every member of a state throws CLOSED, and so does a restore of the state', async () => {
    state.close();
    const calls: (() => unknown)[] = [
      () => state.tokens,
      () => state.byteLength,
      () => state.metadata,
      () => state.share(),
      () => state.writeFile('/nowhere/x'),
      () => context.restoreSequence(0, state),
    ];
    for (const call of calls) {
      expect(await codeOf(call), String(call)).toBe('CLOSED');
    }
  });
});

describe('close()', () => {
  it('may be called again, even while the first call is in progress', async () => {
    await Promise.all([context.close(), context.close()]);
    await context.close();
    await Promise.all([model.close(), model.close()]);
    await model.close();
    state.close();
    state.close();
  });

  it('of a model also closes its contexts', async () => {
    const other = await model.createContext({ kvCells: 256 });
    const decode = codeOf(() => prefill(context, 0, someTokens(4000, 200)));
    await model.close();
    expect(['CLOSED', 'none']).toContain(await decode);
    expect(await codeOf(() => context.clear())).toBe('CLOSED');
    expect(await codeOf(() => other.clear())).toBe('CLOSED');
    await Promise.all([context.close(), other.close()]);
  });

  it('of a context stops a running decode and refuses queued calls', async () => {
    const calls = [
      codeOf(() => context.decode(batchOf(0, 0, someTokens(2000, 200)))),
      codeOf(() => context.decode(batchOf(1, 0, someTokens(2000, 200)))),
      codeOf(() => context.positionRange(0)),
    ];
    await context.close();
    expect((await Promise.all(calls)).slice(1)).toEqual(['CLOSED', 'CLOSED']);
    expect(['CLOSED', 'none']).toContain(await calls[0]);
  });

  it('of a context stops a decode before it has finished', async () => {
    const long = someTokens(4000, 200);
    let message = '';
    for (let delay = 0; !message.includes('was stopped'); delay = (delay + 1) % 50) {
      const subject = await model.createContext({ kvCells: 4096, batchSize: 4096 });
      const decoding = subject.decode(batchOf(0, 0, long)).then(
        () => '',
        (error: HeadstartError) => `${error.code}: ${error.message}`,
      );
      await new Promise((resolve) => setTimeout(resolve, delay));
      await subject.close();
      message = await decoding;
    }
    expect(message).toBe('CLOSED: The decode was stopped because its context was closed');
  });

  it('of a model makes a createContext() in progress fail with CLOSED', async () => {
    const created = codeOf(() => model.createContext({ kvCells: 256 }));
    await model.close();
    expect(await created).toBe('CLOSED');
  });

  it('of a model lets a tokenize() in progress finish', async () => {
    const texts = [model.tokenize('one two'), model.tokenize('three')];
    await model.close();
    expect((await Promise.all(texts)).map((tokens) => tokens.length > 0)).toEqual([true, true]);
  });

  it('of a state lets restores in progress finish, and leaves shared handles open', async () => {
    const shared = state.share();
    const restored = context.restoreSequence(0, state);
    state.close();
    await restored;
    await context.restoreSequence(1, shared);
    expect(shared.tokens).toEqual(tokens);
    shared.close();
  });

  it('inside a getter of an argument makes the call throw CLOSED', async () => {
    const batch = batchOf(0, 0, tokens);
    const closing = {
      ...batch,
      get tokens() {
        void model.close();
        return tokens;
      },
    };
    expect(await codeOf(() => context.decode(closing))).toBe('CLOSED');
    const options = {
      get kvCells() {
        void model.close();
        return 256;
      },
    };
    expect(await codeOf(() => model.createContext(options))).toBe('CLOSED');
  });
});

it('Symbol.asyncDispose and Symbol.dispose close a context, a model and a state', async () => {
  await context[Symbol.asyncDispose]();
  expect(await codeOf(() => context.clear())).toBe('CLOSED');
  await model[Symbol.asyncDispose]();
  expect(await codeOf(() => model.metadata())).toBe('CLOSED');
  state[Symbol.dispose]();
  expect(await codeOf(() => state.byteLength)).toBe('CLOSED');
});
