// With `reproducible`, a self-test runs when a model is loaded. Its result determines which sequences may share a
// batch.
import { HeadstartError, subscribeDiagnostics } from 'llama-headstart';
import { Engine, type Sequence, sameBits } from 'llama-headstart/internal';
import { type Context, Model } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
// @ts-expect-error: scripts are plain JavaScript
import { REPRODUCIBLE_MODELS } from '../fixtures/micro-models/models.mjs';
import { someTokens } from '../helpers/lab.js';
import { type MicroModelName, microModel } from '../helpers/models.js';
import { generate, leaseMany } from '../helpers/open-engine.js';
import { shuffled } from '../helpers/reproducible.js';
import { variants } from '../helpers/soak.js';

const SEQUENCES = 8;

async function open(name: MicroModelName): Promise<Context> {
  const model = await Model.load({ path: microModel(name) });
  const context = await model.createContext({
    kvCells: SEQUENCES * 512,
    maxSequences: SEQUENCES,
    batchSize: 128,
    kvLayout: 'split',
    flashAttention: false,
  });
  onTestFinished(async () => {
    await context.close();
    await model.close();
  });
  return context;
}

/** Returns the context with some of its methods replaced. */
function altered(context: Context, changes: Partial<Context>): Context {
  return new Proxy(context, {
    get(target, name) {
      const value = Reflect.get(changes, name) ?? Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Changes the last bit of one logit in run number `run` of the self-test. Each run begins with `clear()`. */
function alteredInRun(context: Context, run: number): Context {
  let runs = 0;
  return altered(context, {
    clear: () => {
      runs++;
      return context.clear();
    },
    logits: async (row) => {
      const logits = await context.logits(row);
      if (runs === run) {
        const bits = new Int32Array(logits.buffer, logits.byteOffset, logits.length);
        bits[7] = (bits[7] as number) ^ 1;
      }
      return logits;
    },
  });
}

async function requireEmpty(context: Context): Promise<void> {
  for (let sequence = 0; sequence < SEQUENCES; sequence++) {
    expect((await context.positionRange(sequence)).last).toBe(-1);
  }
}

describe('a model is refused at load with NOT_REPRODUCIBLE if one bit of one logit', () => {
  it.each([
    [2, 'changes when the same tokens are decoded again', 'decoded twice'],
    [3, 'changes in another sequence', 'which sequence'],
    [4, 'changes after a state was restored', 'restored'],
  ] as const)('in run %i %s', async (run, _, reason) => {
    const context = await open('dense');
    await expect(Engine.testReproducible(alteredInRun(context, run))).rejects.toMatchObject({
      code: 'NOT_REPRODUCIBLE',
      message: expect.stringContaining(reason),
    });
    await requireEmpty(context);
  });
});

describe('the self-test', () => {
  it('allows no shared batch if one bit changes when sequences share a batch', async () => {
    const context = await open('dense-quantised');
    expect(await Engine.testReproducible(alteredInRun(context, 5))).toBe('none');
    await requireEmpty(context);
  });

  it.each(['CAPTURE_FAILED', 'RESTORE_FAILED', 'STATE_INCOMPATIBLE'] as const)(
    'refuses the model after %s',
    async (code) => {
      const cause = new HeadstartError(code, 'no');
      const context = altered(await open('dense'), { captureSequence: () => Promise.reject(cause) });
      await expect(Engine.testReproducible(context)).rejects.toMatchObject({ code: 'NOT_REPRODUCIBLE', cause });
    },
  );

  it.each(['OUT_OF_MEMORY', 'CLOSED', 'ABORTED'] as const)(
    'throws %s unchanged, because such an error does not concern reproducibility',
    async (code) => {
      const error = new HeadstartError(code, 'not now');
      for (const method of ['captureSequence', 'restoreSequence', 'decode'] as const) {
        const context = altered(await open('dense'), { [method]: () => Promise.reject(error) });
        await expect(Engine.testReproducible(context)).rejects.toBe(error);
      }
    },
  );

  it.each(REPRODUCIBLE_MODELS as MicroModelName[])(
    'lets sequences of %s share a batch only if their logits are the same in every batch',
    async (name) => {
      const context = await open(name);
      const verdict = await Engine.testReproducible(context);
      await requireEmpty(context);
      const alone = await logitsOf(context, 1);
      const differing: number[] = [];
      for (const width of variants([2, 3, 4, 5, 6, 7, 8], (each) => each % 3 === 2)) {
        if (!sameBits(alone, await logitsOf(context, width))) {
          differing.push(width);
        }
      }
      // If the verdict is `none`, this test may find no difference, because some differences are rare.
      expect({ verdict, differing }).toEqual({ verdict, differing: verdict === 'none' ? differing : [] });
    },
  );
});

/**
 * Returns the logits of all sequences after each of 12 single tokens. `width` sequences share each batch, each time in
 * another order. llama.cpp reads KV cells in steps of 256. Some sequences have more than 256 tokens, so llama.cpp reads
 * twice as many cells for each batch that contains such a sequence.
 */
async function logitsOf(context: Context, width: number): Promise<Float32Array[]> {
  await context.clear();
  const texts = Array.from({ length: SEQUENCES }, (_, sequence) =>
    someTokens(sequence % 3 === 2 ? 300 : 20 + 9 * sequence, sequence + 1),
  );
  for (const [sequence, tokens] of texts.entries()) {
    for (let from = 0; from < tokens.length; from += 100) {
      const piece = tokens.subarray(from, from + 100);
      await context.decode({
        tokens: piece,
        positions: Int32Array.from(piece.keys(), (index) => from + index),
        sequences: new Int32Array(piece.length).fill(sequence),
        outputs: new Uint8Array(piece.length),
      });
    }
  }
  const all: Float32Array[] = [];
  for (let step = 0; step < 12; step++) {
    const order = shuffled(SEQUENCES, step);
    for (let begin = 0; begin < SEQUENCES; begin += width) {
      const batch = order.slice(begin, begin + width);
      const [, ...rows] = await Promise.all([
        context.decode({
          tokens: Int32Array.from(batch, (sequence) => someTokens(12, 100 + sequence)[step] as number),
          positions: Int32Array.from(batch, (sequence) => (texts[sequence]?.length ?? 0) + step),
          sequences: Int32Array.from(batch),
          outputs: new Uint8Array(batch.length).fill(1),
        }),
        ...batch.map((_, row) => context.logits(row)),
      ]);
      for (const [row, sequence] of batch.entries()) {
        all[step * SEQUENCES + sequence] = rows[row] as Float32Array;
      }
    }
  }
  return all;
}

describe('in reproducible mode', () => {
  it.each(['tokens', 'none'] as const)(
    'sequences share batches only if the self-test allows it (%s)',
    async (invariance) => {
      const engine = new Engine(await open('dense-quantised'), { reproducible: invariance });
      const steps: { tokens: number; promptTokens: number; sequences: number }[] = [];
      onTestFinished(subscribeDiagnostics('decode', (step) => steps.push(step)));
      const prompts = Array.from({ length: SEQUENCES }, (_, sequence) => someTokens(30 + 60 * sequence, sequence + 1));
      await Promise.all(prompts.map((prompt) => generate(engine, prompt, 12)));
      expect(steps.filter(({ promptTokens, sequences }) => promptTokens > 0 && sequences > 1)).toEqual([]);
      const widest = Math.max(...steps.map(({ sequences }) => sequences));
      expect(widest > 1).toBe(invariance === 'tokens');
      // Prompts are cut at offsets that do not depend on other sequences.
      expect(steps.map(({ promptTokens }) => promptTokens).filter((count) => count > 0 && count < 128)).toHaveLength(
        prompts.filter(({ length }) => length % 128 > 0).length,
      );
    },
  );

  it('a running reply gets a token between any two chunks of long prompts', async () => {
    const engine = new Engine(await open('dense-quantised'), { reproducible: 'tokens' });
    const [sequence, ...others] = (await leaseMany(engine, 7)) as [Sequence, ...Sequence[]];
    let { token } = await engine.decode({ sequence, tokens: someTokens(3, 7) });
    let kinds = '';
    onTestFinished(
      subscribeDiagnostics('decode', ({ promptTokens }) => {
        kinds += promptTokens > 0 ? 'P' : 't';
      }),
    );
    const prompts = others.map((other, index) => engine.prefill(other, someTokens(400, index + 1)));
    let isPrefilling = true;
    const prefills = Promise.all(prompts).then(() => {
      isPrefilling = false;
    });
    while (isPrefilling) {
      ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
    }
    await prefills;
    expect(kinds).toContain('tP');
    expect(kinds).not.toContain('PP');
  });
});
