// A sequence that was restored, read from a file or forked continues exactly like an uninterrupted sequence. If the
// cells of both sequences are at the same places, every logit has the same bits.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Context, type ContextOptions, Model, SequenceState } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { continueGreedily, differences, prefill, someTokens, temporaryDirectory } from '../helpers/native.js';

const KINDS = ['dense', 'sliding-window', 'recurrent', 'hybrid'] as const;
const LAYOUTS: readonly ContextOptions[] = (['unified', 'split'] as const).flatMap((kvLayout) =>
  [true, false].map((flashAttention) => ({ kvLayout, flashAttention })),
);
/** In tokens. Longer than the sliding window of 64 tokens, and not a multiple of the batch size. */
const LENGTH = 150;

const directory = await temporaryDirectory();

describe.each(KINDS)('with a %s model', (kind) => {
  let model: Model;
  let tokens: Int32Array;
  beforeAll(async () => {
    model = await Model.load({ path: microModel(kind) });
    tokens = someTokens(LENGTH, model.info.vocabulary.size);
  });
  afterAll(() => model?.close());

  describe.each(LAYOUTS)('$kvLayout, flash attention: $flashAttention', (layout) => {
    const newContext = () => model.createContext({ kvCells: 1024, batchSize: 64, maxSequences: 2, ...layout });
    let uninterrupted: Float32Array[];
    let first: number;
    let state: SequenceState;

    beforeAll(async () => {
      const context = await newContext();
      first = await prefill(context, 0, tokens);
      state = await context.captureSequence(0, tokens);
      uninterrupted = await continueGreedily(context, 0, LENGTH, first);
      await context.close();
    });
    afterAll(() => state?.close());

    const expectTheSame = async (context: Context, sequence: number) => {
      expect(differences(await continueGreedily(context, sequence, LENGTH, first), uninterrupted)).toEqual([]);
      await context.close();
    };

    it('a second cold prefill has the same logits', async () => {
      const context = await newContext();
      expect(await prefill(context, 0, tokens)).toBe(first);
      await expectTheSame(context, 0);
    });

    it('a capture does not change its sequence', async () => {
      const context = await newContext();
      await prefill(context, 0, tokens);
      (await context.captureSequence(0, tokens)).close();
      await expectTheSame(context, 0);
    });

    it('a captured state can be restored into any sequence, which continues with the same logits', async () => {
      for (const sequence of [0, 1]) {
        const context = await newContext();
        await context.restoreSequence(sequence, state);
        expect((await context.positionRange(sequence)).last).toBe(LENGTH - 1);
        await expectTheSame(context, sequence);
      }
    });

    it('a state can be restored repeatedly, and the sequence continues with the same logits each time', async () => {
      const context = await newContext();
      for (let round = 0; round < 3; round++) {
        await context.restoreSequence(0, state);
        expect(differences(await continueGreedily(context, 0, LENGTH, first), uninterrupted)).toEqual([]);
        await context.removeSequence(0);
      }
      await context.close();
    });

    it('this package and llama.cpp restore a file into a sequence that continues with the same logits', async () => {
      const path = join(directory, `${kind}-${layout.kvLayout}-${layout.flashAttention}.kv`);
      await state.writeFile(path);
      const read = await SequenceState.readFile(path);
      const ours = await newContext();
      await ours.restoreSequence(0, read);
      read.close();
      await expectTheSame(ours, 0);
      const theirs = await newContext();
      expect(await theirs.loadFile(0, path)).toEqual(tokens);
      await expectTheSame(theirs, 0);
    });

    it('a state captured from a restored sequence has the same bytes as the restored state', async () => {
      const context = await newContext();
      await context.restoreSequence(0, state);
      const again = await context.captureSequence(0, tokens);
      const paths = [0, 1].map((which) =>
        join(directory, `${kind}-${layout.kvLayout}-${layout.flashAttention}-${which}.kv`),
      );
      await Promise.all([state.writeFile(paths[0] as string), again.writeFile(paths[1] as string)]);
      const [first, second] = await Promise.all(paths.map((path) => readFile(path)));
      expect(Buffer.compare(first as Buffer, second as Buffer)).toBe(0);
      again.close();
      await context.close();
    });

    if (layout.kvLayout === 'split') return;

    it('a fork continues with the same logits', async () => {
      const context = await newContext();
      await context.restoreSequence(0, state);
      await context.copySequence(0, 1);
      await context.removeSequence(0);
      await expectTheSame(context, 1);
    });

    it('a fork and then its source continue with the same logits', async () => {
      const context = await newContext();
      await context.restoreSequence(0, state);
      await context.copySequence(0, 1);
      expect(differences(await continueGreedily(context, 1, LENGTH, first), uninterrupted)).toEqual([]);
      await context.removeSequence(1);
      await expectTheSame(context, 0);
    });
  });
});
