// An impossible operation on a sequence fails with an error code and changes no sequence.
import { type Context, Model, type SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { batchOf, captureOf, codeOf, continueGreedily, prefill, someTokens } from '../helpers/native.js';

let model: Model;
let unified: Context;
let split: Context;
let tokens: Int32Array;

beforeAll(async () => {
  model = await Model.load({ path: microModel('dense') });
  tokens = someTokens(40, model.info.vocabulary.size);
  unified = await model.createContext({ kvCells: 256, batchSize: 512, maxSequences: 4 });
  split = await model.createContext({ kvCells: 1024, batchSize: 512, maxSequences: 4, kvLayout: 'split' });
});
afterAll(() => model?.close());
beforeEach(() => Promise.all([unified.clear(), split.clear()]));

const last = async (context: Context, sequence: number) => (await context.positionRange(sequence)).last;

describe('copySequence', () => {
  it('shares the cells with the copy, which needs no free cells', async () => {
    await prefill(unified, 0, someTokens(250, model.info.vocabulary.size));
    for (const target of [1, 2, 3]) {
      await unified.copySequence(0, target);
      expect(await unified.positionRange(target)).toEqual({ first: 0, last: 249 });
    }
    expect(unified.counters().copies).toBe(3);
  });

  it('copies only from a sequence with tokens to an empty sequence', async () => {
    await prefill(unified, 0, tokens);
    await prefill(unified, 1, tokens.subarray(0, 10));
    expect(await codeOf(() => unified.copySequence(0, 1))).toBe('SEQUENCE_NOT_EMPTY');
    expect(await codeOf(() => unified.copySequence(0, 0))).toBe('SEQUENCE_NOT_EMPTY');
    expect(await codeOf(() => unified.copySequence(2, 3))).toBe('SEQUENCE_EMPTY');
    expect(await codeOf(() => unified.copySequence(3, 3))).toBe('SEQUENCE_EMPTY');
    expect([await last(unified, 0), await last(unified, 1), await last(unified, 2)]).toEqual([39, 9, -1]);
  });

  it('needs the unified layout', async () => {
    await prefill(split, 0, tokens);
    expect(await codeOf(() => split.copySequence(0, 1))).toBe('NOT_UNIFIED');
    expect(await last(split, 1)).toBe(-1);
  });
});

describe('a full KV cache', () => {
  it('refuses a prompt that is too long, in one batch or several, and keeps its content', async () => {
    const long = someTokens(300, model.info.vocabulary.size);
    await prefill(unified, 1, tokens);
    expect(await codeOf(() => unified.decode(batchOf(0, 0, long.subarray(0, 256))))).toBe('NO_KV_SLOT');
    expect([await last(unified, 0), await last(unified, 1)]).toEqual([-1, 39]);
    await unified.removeSequence(1);
    await prefill(unified, 0, long.subarray(0, 200));
    expect(await codeOf(() => unified.decode(batchOf(0, 200, long.subarray(200, 300))))).toBe('NO_KV_SLOT');
    expect(await last(unified, 0)).toBe(199);
    await unified.decode(batchOf(0, 200, long.subarray(200, 256)));
    expect(await codeOf(() => unified.decode(batchOf(0, 256, Int32Array.of(1))))).toBe('NO_KV_SLOT');
    expect(await last(unified, 0)).toBe(255);
  });

  it('refuses a state, and accepts it when cells are free again', async () => {
    const state = await captureOf(unified, tokens);
    await prefill(unified, 0, someTokens(230, model.info.vocabulary.size));
    expect(await codeOf(() => unified.restoreSequence(1, state))).toBe('NO_KV_SLOT');
    expect(await last(unified, 1)).toBe(-1);
    await unified.removeSequence(0);
    await unified.restoreSequence(1, state);
    expect(await last(unified, 1)).toBe(39);
    state.close();
  });

  it('refuses a state that is longer than a sequence can be', async () => {
    const large = await model.createContext({ kvCells: 512, batchSize: 512 });
    const state = await captureOf(large, someTokens(400, model.info.vocabulary.size));
    const small = await model.createContext({ kvCells: 256 });
    expect(await codeOf(() => small.restoreSequence(0, state))).toBe('NO_KV_SLOT');
    expect(await last(small, 0)).toBe(-1);
    await Promise.all([large.close(), small.close()]);
    state.close();
  });
});

describe('captureSequence', () => {
  it('needs the ids of all tokens of the sequence', async () => {
    await prefill(unified, 0, tokens);
    for (const count of [0, 1, 39, 41]) {
      const wrong = someTokens(count, 100);
      expect(await codeOf(() => unified.captureSequence(0, wrong)), String(count)).toBe('TOKENS_MISMATCH');
    }
    expect(await codeOf(() => unified.captureSequence(1, new Int32Array(0)))).toBe('TOKENS_MISMATCH');
    const state = await unified.captureSequence(0, tokens);
    expect(state.tokens).toEqual(tokens);
    state.close();
  });

  it('copies the token ids, so that the caller may change its arrays', async () => {
    const mine = tokens.slice();
    await prefill(unified, 0, mine);
    const capture = unified.captureSequence(0, mine);
    mine.fill(0);
    const state = await capture;
    state.tokens.fill(7);
    expect(state.tokens).toEqual(tokens);
    state.close();
  });
});

describe('restoreSequence', () => {
  let state: SequenceState;
  beforeEach(async () => {
    state = await captureOf(unified, tokens);
  });

  it('needs an empty sequence', async () => {
    await prefill(unified, 0, tokens.subarray(0, 5));
    expect(await codeOf(() => unified.restoreSequence(0, state))).toBe('SEQUENCE_NOT_EMPTY');
    expect(await last(unified, 0)).toBe(4);
  });

  it('refuses a state of a context with another cache type, attention, layout or number of streams', async () => {
    const kinds = [
      { keyType: 'f32' },
      { valueType: 'q8_0' },
      { flashAttention: false },
      { kvLayout: 'split', maxSequences: 2 },
    ] as const;
    for (const kind of kinds) {
      const context = await model.createContext({ kvCells: 512, ...kind });
      expect(await codeOf(() => context.restoreSequence(0, state)), JSON.stringify(kind)).toBe('STATE_INCOMPATIBLE');
      expect(await last(context, 0)).toBe(-1);
      await context.close();
    }
    const two = await model.createContext({ kvCells: 512, maxSequences: 2, kvLayout: 'split' });
    expect(await codeOf(async () => split.restoreSequence(0, await captureOf(two, tokens)))).toBe('STATE_INCOMPATIBLE');
    await two.close();
  });

  it('refuses a state of another model', async () => {
    for (const name of ['sliding-window', 'recurrent', 'hybrid', 'dense-quantised'] as const) {
      const other = await Model.load({ path: microModel(name) });
      const context = await other.createContext({ kvCells: 256, maxSequences: 4 });
      expect(await codeOf(() => context.restoreSequence(0, state)), name).toBe('STATE_INCOMPATIBLE');
      await other.close();
    }
  });

  it('accepts a state in contexts of any size and number of sequences', async () => {
    const context = await model.createContext({ kvCells: 1024, maxSequences: 7, batchSize: 64 });
    await context.restoreSequence(6, state);
    expect(await last(context, 6)).toBe(39);
    await context.close();
  });
});

describe('removeSequence', () => {
  it('removes the end of a sequence, which can continue from there', async () => {
    const first = await prefill(unified, 0, tokens);
    const straight = await continueGreedily(unified, 0, 40, first, 3);
    expect(await unified.removeSequence(0, 40)).toBe(true);
    expect(await last(unified, 0)).toBe(39);
    expect(await continueGreedily(unified, 0, 40, first, 3)).toEqual(straight);
    expect(await unified.removeSequence(0)).toBe(true);
    expect(await unified.positionRange(0)).toEqual({ first: -1, last: -1 });
  });

  it('refuses to remove the middle of a sequence, and changes nothing', async () => {
    const first = await prefill(unified, 0, tokens);
    for (const [from, to] of [
      [5, 10],
      [0, 5],
      [0, 39],
      [39 - 1, 39],
    ] as const) {
      expect(await codeOf(() => unified.removeSequence(0, from, to)), `${from} to ${to}`).toBe('INVALID_ARGUMENT');
    }
    (await unified.captureSequence(0, tokens)).close();
    const straight = await continueGreedily(unified, 0, 40, first, 3);
    expect(await unified.removeSequence(0, 40, 43)).toBe(true);
    expect(await unified.removeSequence(0, 40, 100)).toBe(true);
    expect(await continueGreedily(unified, 0, 40, first, 3)).toEqual(straight);
    expect(await unified.removeSequence(0, 0, 43)).toBe(true);
    expect(await unified.positionRange(0)).toEqual({ first: -1, last: -1 });
    expect(await unified.removeSequence(0, 0, 5)).toBe(true);
  });

  it('returns false if the window of the remaining tokens has lost cells, but removes a shorter end', async () => {
    const windowed = await Model.load({ path: microModel('sliding-window') });
    const long = someTokens(600, windowed.info.vocabulary.size);
    const options = { kvCells: 1024, batchSize: 256, microBatchSize: 64, maxSequences: 1 };
    const context = await windowed.createContext(options);
    const cold = await windowed.createContext(options);
    await prefill(context, 0, long);
    expect(await context.removeSequence(0, 100)).toBe(false);
    expect((await context.positionRange(0)).last).toBe(599);
    expect(await context.removeSequence(0, 599)).toBe(true);
    expect((await context.positionRange(0)).last).toBe(598);
    // The trimmed sequence continues like a sequence that was never longer.
    await prefill(cold, 0, long.subarray(0, 599));
    const [again] = await continueGreedily(context, 0, 599, 5, 1);
    const [never] = await continueGreedily(cold, 0, 599, 5, 1);
    expect(again).toEqual(never);
    await windowed.close();
  });

  it('returns false if a restored sequence lacks cells of an earlier window, even with `fullSlidingWindow`', async () => {
    const windowed = await Model.load({ path: microModel('sliding-window') });
    const long = someTokens(200, windowed.info.vocabulary.size);
    const context = await windowed.createContext({ kvCells: 512, batchSize: 256, fullSlidingWindow: true });
    await prefill(context, 0, long);
    const restored = await context.captureSequence(0, long);
    expect(await context.removeSequence(0, 100)).toBe(true); // the sequence still has all cells that it decoded
    await context.removeSequence(0);
    await context.restoreSequence(0, restored);
    expect(await context.removeSequence(0, 199)).toBe(false);
    expect(await context.removeSequence(0, 200)).toBe(true);
    expect((await context.positionRange(0)).last).toBe(199);
    await windowed.close();
  });

  it.each([
    ['dense', {}, true],
    ['sliding-window', {}, false],
    ['sliding-window', { fullSlidingWindow: true }, true],
    ['recurrent', {}, false],
    ['hybrid', {}, false],
  ] as const)('removes a long end only if `info.canTrim` is true: %s %j', async (name, options, canTrim) => {
    const other = await Model.load({ path: microModel(name) });
    const context = await other.createContext({ kvCells: 512, batchSize: 256, microBatchSize: 64, ...options });
    await prefill(context, 0, someTokens(400, other.info.vocabulary.size));
    expect(context.info.canTrim).toBe(canTrim);
    expect(await context.removeSequence(0, 10)).toBe(canTrim);
    await other.close();
  });

  it('returns false and changes nothing if the memory of the model cannot remove a part of a sequence', async () => {
    for (const name of ['recurrent', 'hybrid'] as const) {
      const other = await Model.load({ path: microModel(name) });
      const context = await other.createContext({ kvCells: 256, maxSequences: 2 });
      await prefill(context, 0, someTokens(20, other.info.vocabulary.size));
      expect(await context.removeSequence(0, 10), name).toBe(false);
      expect(await last(context, 0)).toBe(19);
      expect(await context.removeSequence(0)).toBe(true);
      expect(await last(context, 0)).toBe(-1);
      await other.close();
    }
  });
});

it('keepSequence removes all other sequences, in both layouts', async () => {
  for (const context of [unified, split]) {
    for (const sequence of [0, 1, 2]) {
      await prefill(context, sequence, tokens);
    }
    await context.keepSequence(1);
    expect([await last(context, 0), await last(context, 1), await last(context, 2)]).toEqual([-1, 39, -1]);
  }
});

it('a model without a tokenizer decodes token ids, and refuses text', async () => {
  const bare = await Model.load({ path: microModel('no-tokenizer') });
  expect(bare.info.vocabulary.type).toBe('none');
  expect(await codeOf(() => bare.tokenize('text'))).toBe('NO_TOKENIZER');
  expect(await codeOf(() => bare.detokenize(Int32Array.of(1)))).toBe('NO_TOKENIZER');
  expect(await codeOf(() => bare.tokenToBytes(1))).toBe('NO_TOKENIZER');
  expect(await codeOf(() => bare.render({ messages: [{ role: 'user', content: 'hi' }] }))).toBe('NO_CHAT_TEMPLATE');
  expect(bare.isEndOfGeneration(0)).toBe(false);
  expect(bare.controlTokens().size).toBe(0);
  const context = await bare.createContext({ kvCells: 256 });
  expect(await prefill(context, 0, tokens)).toBe(await prefill(unified, 0, tokens));
  await bare.close();
});
