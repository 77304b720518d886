// Decodes the same tokens alone and in company, for who compares the logits.
import { throwIfAborted } from '../../abort.js';
import type { Context } from '../../native/context.js';

const PROMPT_TOKENS = 24;
/** Of others, where only their single tokens matter. */
const SHORT_TOKENS = 3;

/** Others beside a single token: every number that kernels may round up to their tiles, and some of the large ones. */
const COMPANY = [...Array.from({ length: 16 }, (_, index) => index + 1), 24, 32, 48, 64, 96, 128, 192];

interface Row {
  sequence: number;
  tokens: Int32Array;
  from: number;
}

/** How many others, and how many of them come first in the batch. */
interface Place {
  others: number;
  before: number;
}

/** Each run begins with an empty context and gives rows of logits of sequence 0, but for `alone`: of the one that it names. */
export class KernelTest {
  readonly #context: Context;
  readonly #signal: AbortSignal | undefined;
  readonly #size: number;
  readonly #places: readonly Place[];

  /** @param signal ends it with `ABORTED`, between two decodes */
  constructor(context: Context, signal?: AbortSignal) {
    const { batchSize, kvCellsPerSequence, maxSequences, maxOutputs } = context.info;
    this.#context = context;
    this.#signal = signal;
    this.#size = Math.max(2, Math.min(PROMPT_TOKENS, batchSize >> 1, kvCellsPerSequence >> 1));
    const most = Math.min(maxSequences, maxOutputs, batchSize) - 1;
    const sizes = [...COMPANY.filter((size) => size < most), most].filter((size) => size > 0);
    this.#places = sizes
      .flatMap((others) => [
        { others, before: 0 },
        { others, before: others },
      ])
      .slice(0, Math.max(1, kvCellsPerSequence - this.#size));
  }

  /** Behind a prompt, and behind as many single tokens as there are places in {@link tokensInCompany}. */
  async alone(sequence: number): Promise<Float32Array[]> {
    await this.#context.clear();
    return [await this.#decode([this.#prompt(sequence)], 0), ...(await this.#singleTokens(sequence))];
  }

  /** The same, and between prompt and tokens the state goes out and comes back. */
  async restored(): Promise<Float32Array[]> {
    await this.#context.clear();
    const prompt = this.#prompt(0);
    const behindPrompt = await this.#decode([prompt], 0);
    const state = await this.#context.captureSequence(0, prompt.tokens);
    try {
      await this.#context.removeSequence(0);
      await this.#context.restoreSequence(0, state);
    } finally {
      state.close();
    }
    return [behindPrompt, ...(await this.#singleTokens(0))];
  }

  /** Prompts one after the other; then each token beside those of others, in all numbers, first and last in the batch. */
  async tokensInCompany(): Promise<Float32Array[]> {
    await this.#context.clear();
    const all = [await this.#decode([this.#prompt(0)], 0)];
    const widest = Math.max(0, ...this.#places.map(({ others }) => others));
    for (let id = 1; id <= widest; id++) {
      await this.#decode([this.#prompt(id, id, SHORT_TOKENS)], 0);
    }
    const taken = new Map<number, number>();
    for (let step = 0; step < this.#steps; step++) {
      const { others, before } = this.#places[step] ?? { others: 0, before: 0 };
      const rows = company(others, before).map((id) => {
        const index = taken.get(id) ?? 0;
        taken.set(id, index + 1);
        return this.#token(id, index, id, SHORT_TOKENS);
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

  /** The prompt that counts is the one with `own` 0; that of another is its own, and shorter. */
  #prompt(sequence: number, own = 0, most = this.#size): Row {
    return this.#row(sequence, own, 0, own === 0 ? this.#size : Math.min(most, this.#size - 1));
  }

  #token(sequence: number, step: number, own = 0, most = this.#size): Row {
    return this.#row(sequence, own, this.#prompt(sequence, own, most).tokens.length + step, 1);
  }

  /** Some text of its own for each `own`. */
  #row(sequence: number, own: number, from: number, length: number): Row {
    const { size } = this.#context.model.vocabulary;
    const id = (index: number) => (own * 7919 + index * 104729 + 5) % size;
    return { sequence, tokens: Int32Array.from({ length }, (_, index) => id(from + index)), from };
  }

  /** @returns the logits behind the last token of the row at `place` */
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
        positions: Int32Array.from(rows.flatMap(({ tokens: each, from }) => [...each].map((_, index) => from + index))),
        sequences: Int32Array.from(rows.flatMap(({ tokens: each, sequence }) => [...each].map(() => sequence))),
        outputs,
      }),
      this.#context.logits(wanted),
    ]);
    return logits;
  }
}

/** The sequences of a batch: 0, which is the one that counts, behind `before` of the others. */
function company(others: number, before: number): number[] {
  const ids = Array.from({ length: others }, (_, index) => index + 1);
  ids.splice(before, 0, 0);
  return ids;
}
