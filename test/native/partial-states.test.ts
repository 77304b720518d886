// A partial state contains only the memory that cannot be trimmed. Its restore resets a longer sequence to the tokens
// of the state.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Context, type ContextOptions, Model, type SequenceState } from 'llama-headstart/native';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import {
  codeOf,
  continueGreedily,
  differences,
  largestDifference,
  logitsOf,
  prefill,
  someTokens,
  temporaryDirectory,
} from '../helpers/native.js';

const KINDS = ['sliding-window', 'recurrent', 'hybrid'] as const;
const LAYOUTS: readonly ContextOptions[] = (['unified', 'split'] as const).flatMap((kvLayout) =>
  [true, false].map((flashAttention) => ({ kvLayout, flashAttention })),
);
/** In tokens. Longer than the sliding window of 64 tokens, and not a multiple of the batch size. */
const LENGTH = 150;
/** Logits differ by less than this if the cells are at other places in the cache. */
const PLACE_NOISE = 0.05;

const directory = await temporaryDirectory();

describe.each(KINDS)('with a %s model', (kind) => {
  let model: Model;
  let tokens: Int32Array;
  let abandoned: Int32Array;
  let next: Int32Array;

  beforeAll(async () => {
    model = await Model.load({ path: microModel(kind) });
    const { size } = model.info.vocabulary;
    tokens = someTokens(LENGTH, size);
    abandoned = someTokens(100, size, 2);
    next = someTokens(30, size, 3);
  });
  afterAll(() => model?.close());

  const newContext = (options: ContextOptions = {}) =>
    model.createContext({ kvCells: 1024, batchSize: 64, maxSequences: 3, ...options });

  /** Continues a sequence with the tokens `next`, first in a batch and then one by one. Returns the last logits. */
  const logitsAfter = async (context: Context, sequence = 0, from = LENGTH) => {
    await prefill(context, sequence, next.subarray(0, -5), from);
    return logitsOf(context, sequence, next.subarray(-5), from + next.length - 5);
  };

  describe.each(LAYOUTS)('$kvLayout, flash attention: $flashAttention', (layout) => {
    let context: Context;
    let whole: SequenceState;
    let partial: SequenceState;

    /** Captures sequence 0, continues it, and restores the partial state. */
    beforeEach(async () => {
      context = await newContext(layout);
      await prefill(context, 0, tokens);
      whole = await context.captureSequence(0, tokens);
      partial = await context.captureSequence(0, tokens, { partial: true });
      await prefill(context, 0, abandoned, LENGTH);
      await context.restoreSequence(0, partial);
    });
    afterEach(() => context.close());

    it('a restored sequence continues with the logits of an uninterrupted sequence', async () => {
      expect((await context.positionRange(0)).last).toBe(LENGTH - 1);
      const straight = await newContext(layout);
      await prefill(straight, 0, tokens);
      const expected = await logitsAfter(straight);
      const actual = await logitsAfter(context);
      if (kind === 'sliding-window') {
        // The restore puts the cells of the window at other places.
        expect(largestDifference(actual, expected)).toBeLessThan(PLACE_NOISE);
      } else {
        expect(differences(actual, expected)).toEqual([]);
      }
      await straight.close();
    });

    it('the restores of a partial and of a whole state lead to the same logits', async () => {
      const other = await newContext(layout);
      await other.restoreSequence(0, whole);
      expect(differences(await logitsAfter(context), await logitsAfter(other))).toEqual([]);
      await other.close();
    });

    it('a whole state captured after the restore has the same bytes as one captured before', async () => {
      const again = await context.captureSequence(0, tokens);
      const name = `${kind}-${layout.kvLayout}-${layout.flashAttention}`;
      const bytes = await Promise.all(
        [whole, again].map(async (state, index) => {
          const path = join(directory, `${name}-${index}.kv`);
          await state.writeFile(path);
          return readFile(path);
        }),
      );
      expect(Buffer.compare(...(bytes as [Buffer, Buffer]))).toBe(0);
      again.close();
    });
  });

  it('stateBytes() returns the size of a state, and only recurrent models have large partial states', async () => {
    const context = await newContext();
    expect(await context.stateBytes(0)).toBe(0);
    expect(await context.stateBytes(0, { partial: true })).toBe(0);
    await prefill(context, 0, tokens);
    const whole = await context.captureSequence(0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    expect(await context.stateBytes(0)).toBe(whole.byteLength);
    expect(await context.stateBytes(0, { partial: true })).toBe(partial.byteLength);
    expect([whole.isPartial, partial.isPartial]).toEqual([false, true]);
    expect(partial.tokens).toEqual(tokens);
    if (kind === 'recurrent') {
      expect(partial.byteLength).toBe(whole.byteLength);
    } else {
      expect(partial.byteLength).toBeLessThan(whole.byteLength / 2);
    }
    await context.close();
  });

  it('a partial state can be shared, and throws CLOSED after it is closed', async () => {
    const context = await newContext();
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    const shared = partial.share();
    partial.close();
    expect(await codeOf(() => partial.isPartial)).toBe('CLOSED');
    expect(await codeOf(() => context.restoreSequence(0, partial))).toBe('CLOSED');
    expect([shared.isPartial, shared.tokens.length]).toEqual([true, LENGTH]);
    await prefill(context, 0, abandoned, LENGTH);
    await context.restoreSequence(0, shared);
    expect((await context.positionRange(0)).last).toBe(LENGTH - 1);
    await context.close();
  });

  it('a partial state cannot be written to a file', async () => {
    const context = await newContext();
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    const path = join(directory, `${kind}-partial.kv`);
    expect(await codeOf(() => partial.writeFile(path))).toBe('INVALID_ARGUMENT');
    expect(existsSync(path)).toBe(false);
    await context.close();
  });

  it('after an aborted restore, a sequence is unchanged, empty or restored, as its last position shows', async () => {
    const context = await newContext();
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    await prefill(context, 0, abandoned, LENGTH);
    const { last: longer } = await context.positionRange(0);

    const queued = new AbortController();
    const blocking = prefill(context, 1, tokens.subarray(0, 64));
    const aborted = codeOf(() => context.restoreSequence(0, partial, queued));
    queued.abort();
    expect([await aborted, (await context.positionRange(0)).last]).toEqual(['ABORTED', longer]);
    await blocking;

    for (let round = 0; round < 10; round++) {
      const abort = new AbortController();
      const restored = codeOf(() => context.restoreSequence(0, partial, abort));
      for (let turns = 0; turns < round % 5; turns++) await new Promise(setImmediate);
      abort.abort();
      const code = await restored;
      const { last } = await context.positionRange(0);
      expect(code === 'none' ? [LENGTH - 1] : [longer, -1]).toContain(last);
      await context.removeSequence(0);
      await prefill(context, 0, tokens);
      await prefill(context, 0, abandoned, LENGTH);
    }
    await context.close();
  });

  describe('forks', () => {
    let context: Context;
    let straight: Float32Array[];
    beforeAll(async () => {
      // The forks need the larger window cache of a context with more sequences.
      context = await newContext({ maxSequences: 8, flashAttention: false });
      await prefill(context, 0, tokens);
      straight = await logitsAfter(context);
      // After other tokens, the logits at the same positions must be clearly different.
      await prefill(context, 1, abandoned);
      await prefill(context, 1, tokens.subarray(0, LENGTH - abandoned.length), abandoned.length);
      expect(largestDifference(await logitsAfter(context, 1), straight)).toBeGreaterThan(10 * PLACE_NOISE);
    });
    afterAll(() => context?.close());
    beforeEach(() => context.clear());

    const expectStraight = async (sequence: number) => {
      expect(largestDifference(await logitsAfter(context, sequence), straight)).toBeLessThan(PLACE_NOISE);
    };

    it('a restore changes no fork that shares cells with the sequence', async () => {
      await prefill(context, 0, tokens);
      const partial = await context.captureSequence(0, tokens, { partial: true });
      await context.copySequence(0, 1);
      await prefill(context, 0, abandoned.subarray(0, 40), LENGTH);
      await context.copySequence(0, 2); // also shares the tokens that the restore removes from sequence 0
      await context.restoreSequence(0, partial);
      expect((await context.positionRange(1)).last).toBe(LENGTH - 1);
      expect((await context.positionRange(2)).last).toBe(LENGTH + 39);
      await expectStraight(1);
      await expectStraight(0);

      const longer = await logitsAfter(context, 2, LENGTH + 40);
      await context.clear();
      await prefill(context, 2, tokens);
      await prefill(context, 2, abandoned.subarray(0, 40), LENGTH);
      expect(largestDifference(longer, await logitsAfter(context, 2, LENGTH + 40))).toBeLessThan(PLACE_NOISE);
    });

    it('a fork can restore a checkpoint of its source, and then works without the source', async () => {
      await prefill(context, 0, tokens);
      const partial = await context.captureSequence(0, tokens, { partial: true });
      await prefill(context, 0, abandoned, LENGTH);
      await context.copySequence(0, 1);
      await context.restoreSequence(1, partial);
      expect((await context.positionRange(0)).last).toBe(LENGTH + abandoned.length - 1);
      await context.removeSequence(0);
      await expectStraight(1);
    });

    it('a restored sequence can be forked, captured and restored again', async () => {
      await prefill(context, 0, tokens);
      const partial = await context.captureSequence(0, tokens, { partial: true });
      await prefill(context, 0, abandoned, LENGTH);
      await context.restoreSequence(0, partial);
      await context.copySequence(0, 1);
      const whole = await context.captureSequence(0, tokens);
      await context.restoreSequence(0, partial); // nothing to remove
      await context.restoreSequence(2, whole);
      for (const sequence of [0, 1, 2]) {
        expect((await context.positionRange(sequence)).last).toBe(LENGTH - 1);
        await expectStraight(sequence);
        await context.removeSequence(sequence);
      }
    });
  });

  it('a restored sequence cannot be trimmed further', async () => {
    const context = await newContext();
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    await prefill(context, 0, abandoned, LENGTH);
    await context.restoreSequence(0, partial);
    expect(await context.removeSequence(0, LENGTH - 10)).toBe(false);
    expect(await context.removeSequence(0, LENGTH)).toBe(true);
    expect((await context.positionRange(0)).last).toBe(LENGTH - 1);
    await context.close();
  });

  it('a partial state of another sequence with the same tokens is accepted in the split layout', async () => {
    const context = await newContext({ kvLayout: 'split', flashAttention: false });
    await prefill(context, 0, tokens);
    const expected = await logitsAfter(context);
    await prefill(context, 1, tokens);
    const partial = await context.captureSequence(1, tokens, { partial: true });
    await prefill(context, 2, tokens);
    await prefill(context, 2, abandoned, LENGTH);
    await context.restoreSequence(2, partial);
    expect(largestDifference(await logitsAfter(context, 2), expected)).toBeLessThan(PLACE_NOISE);
    await context.close();
  });
});

describe('a partial state', () => {
  const contextOf = async (name: Parameters<typeof microModel>[0], options: ContextOptions = {}) => {
    const model = await Model.load({ path: microModel(name) });
    const context = await model.createContext({ kvCells: 1024, batchSize: 64, maxSequences: 3, ...options });
    return { model, context, tokens: someTokens(LENGTH, model.info.vocabulary.size) };
  };

  it.each([
    ['dense', {}],
    ['sliding-window', { fullSlidingWindow: true }],
  ] as const)('is refused if the memory can be trimmed: %s %j', async (name, options) => {
    const { model, context, tokens } = await contextOf(name, options);
    await prefill(context, 0, tokens);
    expect(await codeOf(() => context.captureSequence(0, tokens, { partial: true }))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => context.stateBytes(0, { partial: true }))).toBe('INVALID_ARGUMENT');
    expect(await codeOf(() => context.stateBytes(1, { partial: true }))).toBe('INVALID_ARGUMENT');
    await model.close();
  });

  it.each(['sliding-window', 'hybrid'] as const)('needs a sequence with all tokens of the state: %s', async (name) => {
    const { model, context, tokens } = await contextOf(name);
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    expect(await codeOf(() => context.restoreSequence(1, partial))).toBe('TOKENS_MISMATCH');
    expect((await context.positionRange(1)).last).toBe(-1);
    await prefill(context, 2, tokens.subarray(0, -1));
    expect(await codeOf(() => context.restoreSequence(2, partial))).toBe('TOKENS_MISMATCH');
    expect((await context.positionRange(2)).last).toBe(LENGTH - 2);
    await model.close();
  });

  it('of a recurrent model replaces any content of a sequence', async () => {
    const { model, context, tokens } = await contextOf('recurrent');
    const first = await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    const straight = await continueGreedily(context, 0, LENGTH, first);
    await prefill(context, 1, tokens.subarray(20, 50));
    for (const sequence of [0, 1, 2]) {
      await context.restoreSequence(sequence, partial);
      expect(differences(await continueGreedily(context, sequence, LENGTH, first), straight)).toEqual([]);
    }
    await model.close();
  });

  it('of a context with incompatible options is refused, and the sequence stays unchanged', async () => {
    const { model, context, tokens } = await contextOf('hybrid');
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    const other = await model.createContext({ kvCells: 1024, batchSize: 64, flashAttention: false });
    await prefill(other, 0, tokens);
    expect(await codeOf(() => other.restoreSequence(0, partial))).toBe('STATE_INCOMPATIBLE');
    expect((await other.positionRange(0)).last).toBe(LENGTH - 1);
    await model.close();
  });

  it('empties the sequence if the sliding-window cache has no free cells for the state', async () => {
    const { model, context } = await contextOf('sliding-window', { microBatchSize: 64 });
    const { size } = model.info.vocabulary;
    const tokens = someTokens(200, size);
    await prefill(context, 0, tokens);
    const partial = await context.captureSequence(0, tokens, { partial: true });
    await context.copySequence(0, 1);
    await context.copySequence(0, 2);
    await prefill(context, 0, someTokens(56, size, 2), 200); // fills the 256 cells of the window cache
    expect(await codeOf(() => context.restoreSequence(1, partial))).toBe('NO_KV_SLOT');
    expect((await context.positionRange(1)).last).toBe(-1);
    expect((await context.positionRange(0)).last).toBe(255);
    await context.removeSequence(0);
    await context.restoreSequence(2, partial);
    expect((await context.positionRange(2)).last).toBe(199);
    await model.close();
  });

  it('of a sequence shorter than the sliding window can be restored and then trimmed', async () => {
    const { model, context, tokens } = await contextOf('sliding-window');
    const short = tokens.subarray(0, 40);
    await prefill(context, 0, short);
    const partial = await context.captureSequence(0, short, { partial: true });
    await prefill(context, 0, tokens.subarray(40, 60), 40);
    await context.restoreSequence(0, partial);
    expect(await context.removeSequence(0, 20)).toBe(true);
    const trimmed = await prefill(context, 0, tokens.subarray(60, 70), 20);
    await prefill(context, 1, tokens.subarray(0, 20));
    expect(await prefill(context, 1, tokens.subarray(60, 70), 20)).toBe(trimmed);
    await model.close();
  });
});

describe('maxBytes', () => {
  it('refuses a larger state with both sizes in the message, and leaves the sequence unchanged', async () => {
    const model = await Model.load({ path: microModel('hybrid') });
    const context = await model.createContext({ kvCells: 256, batchSize: 64 });
    const tokens = someTokens(100, model.info.vocabulary.size);
    await prefill(context, 0, tokens);
    for (const partial of [false, true]) {
      const size = await context.stateBytes(0, { partial });
      const refused = context.captureSequence(0, tokens, { partial, maxBytes: size - 1 });
      await expect(refused).rejects.toMatchObject({
        code: 'STATE_TOO_LARGE',
        message: expect.stringMatching(new RegExp(`${size - 1} bytes.* ${size}$`)),
      });
      const state = await context.captureSequence(0, tokens, { partial, maxBytes: size });
      expect(state.byteLength).toBe(size);
    }
    expect(await codeOf(() => context.captureSequence(0, tokens, { maxBytes: 0 }))).toBe('STATE_TOO_LARGE');
    expect((await context.positionRange(0)).last).toBe(99);
    await model.close();
  });
});
