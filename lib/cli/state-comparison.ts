// Compares the states of a bundle with states that this machine computes from the same tokens.
import type { EntryMetadata } from '../cache/disk/entry.js';
import { HeadstartError } from '../errors.js';
import { fingerprintModel } from '../model/fingerprint.js';
import { resolveModel } from '../model/resolve-model.js';
import type { CacheType, Context, KvLayout, RopeScaling } from '../native/context.js';
import { Model } from '../native/model.js';
import type { SequenceState } from '../native/state.js';
import { chooseModel } from './choose-model.js';
import { show } from './model-step.js';
import type { ModelCall } from './open-agent.js';

/** The result for one template. */
export interface ComparedState {
  key: string;
  /** Whether both states give the same logits to the bit. */
  equal: boolean;
  /** The largest difference of a probability of a next token, 0 to 1. */
  difference: number;
}

/** The noise of other batches, threads and CPUs. Quantized models amplify it. */
const MAX_DIFFERENCE = 0.1;
/** Number of tokens that are decoded after each state. */
const PROBE_TOKENS = 8;
const BATCH = 512;
const COMPUTED = 0;
const IMPORTED = 1;

export class StateComparison {
  readonly results: ComparedState[] = [];
  readonly #model: Model;
  readonly #fingerprint: string;
  readonly #call: ModelCall;

  private constructor(call: ModelCall, model: Model, fingerprint: string) {
    this.#call = call;
    this.#model = model;
    this.#fingerprint = fingerprint;
  }

  /** @throws HeadstartError `INVALID_ARGUMENT`, and the errors of loading a model. */
  static async open(call: ModelCall): Promise<StateComparison> {
    const source = await chooseModel(call, undefined);
    const { signal, options } = call;
    return call.step('model', async (step) => {
      const { path } = await resolveModel(source, {
        ...(options.modelsDir !== undefined && { modelsDir: options.modelsDir }),
        signal,
        onProgress: (state) => show(step, state),
      });
      const fingerprint = await fingerprintModel(path, { signal });
      const onProgress = (fraction: number) => show(step, { phase: 'load', fraction });
      return new StateComparison(call, await Model.load({ path, onProgress, signal }), fingerprint);
    });
  }

  /**
   * Prefills the tokens of a state, and compares what the model would continue with.
   *
   * @throws HeadstartError `BUNDLE_INVALID` if the states differ, `INVALID_ARGUMENT` if the model made another state.
   */
  readonly compare = async (state: SequenceState, metadata: EntryMetadata): Promise<void> => {
    const { key, components } = metadata;
    if (components.fingerprint !== this.#fingerprint) {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected the model that made the template ${key} in --model.`);
    }
    if (components.lora.length > 0) {
      throw new HeadstartError(
        'INVALID_ARGUMENT',
        `The template ${key} needs LoRA adapters, so it cannot be computed.`,
      );
    }
    const { tokens } = state;
    const context = await this.#model.createContext(contextOptions(metadata, tokens.length, this.#call));
    try {
      await this.#prefill(context, tokens);
      await context.restoreSequence(IMPORTED, state);
      const result = { key, ...(await this.#probe(context, tokens)) };
      if (result.difference > MAX_DIFFERENCE) {
        const percent = Math.round(100 * result.difference);
        throw new HeadstartError(
          'BUNDLE_INVALID',
          `The state of the template ${key} differs from the one that this machine computes: a probability differs by ${percent} %.`,
        );
      }
      this.results.push(result);
    } finally {
      await context.close();
    }
  };

  close(): Promise<void> {
    return this.#model.close();
  }

  async #prefill(context: Context, tokens: Int32Array): Promise<void> {
    const { signal } = this.#call;
    for (let from = 0; from < tokens.length; from += BATCH) {
      await decodeRows(context, COMPUTED, tokens.subarray(from, from + BATCH), from, false, signal);
    }
  }

  /** Decodes the same tokens after both states, and compares the probabilities of the next tokens. */
  async #probe(context: Context, template: Int32Array): Promise<Omit<ComparedState, 'key'>> {
    let equal = true;
    let difference = 0;
    for (const [step, token] of template.slice(0, PROBE_TOKENS).entries()) {
      const position = template.length + step;
      const rows: Float32Array[] = [];
      for (const sequence of [COMPUTED, IMPORTED]) {
        await decodeRows(context, sequence, Int32Array.of(token), position, true, this.#call.signal);
        rows.push(await context.logits(0));
      }
      const [a, b] = rows as [Float32Array, Float32Array];
      equal &&= a.every((logit, index) => logit === b[index]);
      difference = Math.max(difference, largestDifference(probabilities(a), probabilities(b)));
    }
    return { equal, difference };
  }
}

function decodeRows(
  context: Context,
  sequence: number,
  tokens: Int32Array,
  from: number,
  hasOutput: boolean,
  signal: AbortSignal,
) {
  const { length } = tokens;
  const outputs = new Uint8Array(length);
  outputs[length - 1] = hasOutput ? 1 : 0;
  return context.decode({
    tokens: tokens.slice(),
    positions: Int32Array.from({ length }, (_, index) => from + index),
    sequences: new Int32Array(length).fill(sequence),
    outputs,
    signal,
  });
}

/** The options of a context that can restore a state with these key components. */
function contextOptions({ components }: EntryMetadata, tokens: number, { options, signal }: ModelCall) {
  const { layout, streams, keyType, valueType, flashAttention, fullSlidingWindow } = components;
  const { ropeScaling, ropeFrequencyBase, ropeFrequencyScale } = components;
  const isSplit = layout === 'split';
  const sequences = Math.max(2, isSplit ? streams : 2);
  const cells = tokens + PROBE_TOKENS;
  return {
    kvCells: cells * sequences,
    maxSequences: sequences,
    batchSize: BATCH,
    kvLayout: layout as KvLayout,
    keyType: keyType as CacheType,
    valueType: valueType as CacheType,
    flashAttention,
    fullSlidingWindow,
    ropeScaling: ropeScaling as RopeScaling,
    ropeFrequencyBase,
    ropeFrequencyScale,
    ...(options.threads !== undefined && { nThreads: options.threads }),
    signal,
  };
}

function probabilities(logits: Float32Array): Float64Array {
  const largest = logits.reduce((most, logit) => Math.max(most, logit), Number.NEGATIVE_INFINITY);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function largestDifference(a: Float64Array, b: Float64Array): number {
  return a.reduce((most, value, index) => {
    const difference = Math.abs(value - (b[index] as number));
    // A damaged state can give NaN, which must not count as equal.
    return Number.isNaN(difference) ? 1 : Math.max(most, difference);
  }, 0);
}
