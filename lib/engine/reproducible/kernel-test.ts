// Decodes the same tokens alone and in batches with other sequences, so that the logits can be compared.
import { throwIfAborted } from '../../abort.js';
import type { Context } from '../../native/context.js';

const PROMPT_TOKENS = 24;
/** Prompt length of the other sequences in {@link KernelTest.tokensInBatches}, which tests only single tokens. */
const SHORT_PROMPT_TOKENS = 3;

/**
 * Numbers of other tokens in the batch. All numbers up to 16 are tested, because kernels may round them up to a tile
 * size.
 */
const BATCH_SIZES = [...Array.from({ length: 16 }, (_, index) => index + 1), 24, 32, 48, 64, 96, 128, 192];

interface Row {
  sequence: number;
  tokens: Int32Array;
  from: number;
}

/** The place of the tested token in a batch: how many other tokens there are, and how many of them precede it. */
interface Place {
  others: number;
  before: number;
}

/**
 * Decodes tokens in several ways. Each method first empties the context. {@link alone} returns the logits of the given
 * sequence, and the other methods return the logits of sequence 0.
 */
export class KernelTest {
  readonly #context: Context;
  readonly #signal: AbortSignal | undefined;
  readonly #size: number;
  readonly #places: readonly Place[];

  /** @param signal stops the test between two decodes, with `ABORTED` */
  constructor(context: Context, signal?: AbortSignal) {
    const { batchSize, kvCellsPerSequence, maxSequences, maxOutputs } = context.info;
    this.#context = context;
    this.#signal = signal;
    this.#size = Math.max(2, Math.min(PROMPT_TOKENS, batchSize >> 1, kvCellsPerSequence >> 1));
    const maxOthers = Math.min(maxSequences, maxOutputs, batchSize) - 1;
    const sizes = [...BATCH_SIZES.filter((size) => size < maxOthers), maxOthers].filter((size) => size > 0);
    this.#places = sizes
      .flatMap((others) => [
        { others, before: 0 },
        { others, before: others },
      ])
      .slice(0, Math.max(1, kvCellsPerSequence - this.#size));
  }

  /** The logits after a prompt, and after as many single tokens as {@link tokensInBatches} decodes. */
  async alone(sequence: number): Promise<Float32Array[]> {
    await this.#context.clear();
    return [await this.#decode([this.#prompt(sequence)], 0), ...(await this.#singleTokens(sequence))];
  }

  /** Like {@link alone}, with the state captured and restored between the prompt and the tokens. */
  async restored(): Promise<Float32Array[]> {
    await this.#context.clear();
    const prompt = this.#prompt(0);
    const afterPrompt = await this.#decode([prompt], 0);
    const state = await this.#context.captureSequence(0, prompt.tokens);
    try {
      await this.#context.removeSequence(0);
      await this.#context.restoreSequence(0, state);
    } finally {
      state.close();
    }
    return [afterPrompt, ...(await this.#singleTokens(0))];
  }

  /**
   * Like {@link alone}, but each single token is decoded in a batch with tokens of other sequences. The batches have
   * different sizes, and the tested token is their first or their last token.
   */
  async tokensInBatches(): Promise<Float32Array[]> {
    await this.#context.clear();
    const all = [await this.#decode([this.#prompt(0)], 0)];
    const widest = Math.max(0, ...this.#places.map(({ others }) => others));
    for (let id = 1; id <= widest; id++) {
      await this.#decode([this.#prompt(id, id, SHORT_PROMPT_TOKENS)], 0);
    }
    const decoded = new Map<number, number>();
    for (let step = 0; step < this.#steps; step++) {
      const { others, before } = this.#places[step] ?? { others: 0, before: 0 };
      const rows = batchOf(others, before).map((id) => {
        const index = decoded.get(id) ?? 0;
        decoded.set(id, index + 1);
        return this.#token(id, index, id, SHORT_PROMPT_TOKENS);
      });
      all.push(await this.#decode(rows, before));
    }
    return all;
  }

  async #singleTokens(sequence: number): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (let step = 0; step < this.#steps; step++) {
      all.push(await this.#decode([this.#token(sequence, step)], 0));
    }
    return all;
  }

  get #steps(): number {
    return Math.max(2, this.#places.length);
  }

  /** Text 0 is the tested text. The prompts of other texts are shorter. */
  #prompt(sequence: number, text = 0, maxTokens = this.#size): Row {
    return this.#row(sequence, text, 0, text === 0 ? this.#size : Math.min(maxTokens, this.#size - 1));
  }

  #token(sequence: number, step: number, text = 0, maxTokens = this.#size): Row {
    return this.#row(sequence, text, this.#prompt(sequence, text, maxTokens).tokens.length + step, 1);
  }

  /** Pseudorandom tokens, different for each `text`. */
  #row(sequence: number, text: number, from: number, length: number): Row {
    const { size } = this.#context.model.vocabulary;
    const id = (index: number) => (text * 7919 + index * 104729 + 5) % size;
    return { sequence, tokens: Int32Array.from({ length }, (_, index) => id(from + index)), from };
  }

  /** @returns the logits after the last token of row `place` */
  async #decode(rows: readonly Row[], place: number): Promise<Float32Array> {
    throwIfAborted(this.#signal);
    const tokens = Int32Array.from(rows.flatMap((row) => [...row.tokens]));
    const outputs = new Uint8Array(tokens.length);
    let end = 0;
    let wanted = 0;
    rows.forEach((row, index) => {
      end += row.tokens.length;
      outputs[end - 1] = 1;
      wanted = index === place ? end - 1 : wanted;
    });
    const [, logits] = await Promise.all([
      this.#context.decode({
        tokens,
        positions: Int32Array.from(rows.flatMap(({ tokens: row, from }) => [...row].map((_, index) => from + index))),
        sequences: Int32Array.from(rows.flatMap(({ tokens: row, sequence }) => [...row].map(() => sequence))),
        outputs,
      }),
      this.#context.logits(wanted),
    ]);
    return logits;
  }
}

/** The sequence ids of a batch. The tested sequence 0 comes after `before` other sequences. */
function batchOf(others: number, before: number): number[] {
  const ids = Array.from({ length: others }, (_, index) => index + 1);
  ids.splice(before, 0, 0);
  return ids;
}
