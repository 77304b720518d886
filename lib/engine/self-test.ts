// What `reproducible` asks of a model's kernels, found out when it is loaded.
import { HeadstartError } from '../errors.js';
import type { Context } from '../native/context.js';

/** What may share a batch. */
export type Company =
  /** Prompts and single tokens: the kernels give the same in any batch. */
  | 'all'
  /** Single tokens only; a piece of a prompt is decoded alone. */
  | 'tokens'
  /** Nothing: sessions take turns, each decoding alone. */
  | 'none';

const PROMPT_TOKENS = 24;
/** Of others, where only their single tokens matter. */
const SHORT_TOKENS = 3;
const STEPS = 2;
const COMPANY = [1, 3, 8];

interface Row {
  sequence: number;
  tokens: Int32Array;
  from: number;
}

/**
 * Decodes a prompt and single tokens: twice, in another sequence, from a restored state, and beside 1, 3 and 8 others.
 *
 * @param context an empty one in split streams, with flash attention off; it is empty afterwards
 * @returns what may share a batch, so that logits are the same to the bit
 * @throws HeadstartError `NOT_REPRODUCIBLE` with the reason, where not even those are.
 */
export async function testReproducible(context: Context): Promise<Company> {
  const { maxSequences, fullSlidingWindow } = context.info;
  if (context.model.slidingWindow > 0 && fullSlidingWindow) {
    throw notReproducible('a sliding window whose cells are all kept (`fullSlidingWindow`) is restored without them');
  }
  const test = new KernelTest(context);
  try {
    const expected = await test.alone(0);
    await test.require(expected, await test.alone(0), 'the same tokens, decoded twice, give different logits');
    const last = maxSequences - 1;
    await test.require(expected, await test.alone(last), 'the logits depend on which sequence the tokens are in');
    await test.require(
      expected,
      await test.restored(),
      'a restored state gives other logits than the one it was taken from',
    );
    if (!(await test.sameInCompany(expected, (size, place) => test.tokensInCompany(size, place)))) {
      return 'none';
    }
    // Prompts in one batch are cut to pieces of one length, and a window's cells lie where the cuts were.
    const maySharePrompts = context.model.slidingWindow === 0;
    return maySharePrompts && (await test.sameInCompany(expected, (size, place) => test.allInCompany(size, place)))
      ? 'all'
      : 'tokens';
  } finally {
    await context.clear();
  }
}

/** Each run gives the logits behind a prompt and behind each of the tokens that follow. */
class KernelTest {
  readonly #context: Context;
  readonly #size: number;

  constructor(context: Context) {
    this.#context = context;
    this.#size = Math.max(
      2,
      Math.min(PROMPT_TOKENS, context.info.batchSize >> 1, context.info.kvCellsPerSequence >> 1),
    );
  }

  async alone(sequence: number): Promise<Float32Array[]> {
    await this.#context.clear();
    const all = [await this.#decode([this.#prompt(sequence)], 0)];
    for (let step = 0; step < STEPS; step++) {
      all.push(await this.#decode([this.#token(sequence, step)], 0));
    }
    return all;
  }

  async restored(): Promise<Float32Array[]> {
    await this.#context.clear();
    const { tokens } = this.#prompt(0);
    const all = [await this.#decode([this.#prompt(0)], 0)];
    const state = await this.#context.captureSequence(0, tokens);
    try {
      await this.#context.removeSequence(0);
      await this.#context.restoreSequence(0, state);
    } catch (cause) {
      throw notReproducible('its state cannot be captured and restored', cause);
    } finally {
      state.close();
    }
    for (let step = 0; step < STEPS; step++) {
      all.push(await this.#decode([this.#token(0, step)], 0));
    }
    return all;
  }

  async sameInCompany(
    expected: readonly Float32Array[],
    run: (size: number, place: number) => Promise<Float32Array[]>,
  ): Promise<boolean> {
    const { maxSequences, batchSize, maxOutputs } = this.#context.info;
    const most = Math.min(maxSequences, maxOutputs, Math.floor(batchSize / this.#size)) - 1;
    const sizes = [...new Set([...COMPANY.filter((size) => size < most), most])].filter((size) => size > 0);
    for (const size of sizes) {
      for (const place of [0, size]) {
        if (!same(expected, await run(size, place))) {
          return false;
        }
      }
    }
    return true;
  }

  async require(expected: readonly Float32Array[], actual: readonly Float32Array[], reason: string): Promise<void> {
    if (!same(expected, actual)) {
      throw notReproducible(reason);
    }
  }

  /** Prompts one after the other, then a token of each in one batch; the one that counts is at `place` in it. */
  async tokensInCompany(size: number, place: number): Promise<Float32Array[]> {
    await this.#context.clear();
    const ids = company(size, place);
    let behindPrompt = new Float32Array();
    for (const id of ids) {
      const logits = await this.#decode([this.#prompt(id, id, SHORT_TOKENS)], 0);
      behindPrompt = id === 0 ? new Float32Array(logits) : behindPrompt;
    }
    return [behindPrompt, ...(await this.#steps(ids, place, SHORT_TOKENS))];
  }

  /** The same, and the prompts are in one batch, too, though of different lengths. */
  async allInCompany(size: number, place: number): Promise<Float32Array[]> {
    await this.#context.clear();
    const ids = company(size, place);
    const behindPrompt = await this.#decode(
      ids.map((id) => this.#prompt(id, id)),
      place,
    );
    return [behindPrompt, ...(await this.#steps(ids, place))];
  }

  async #steps(ids: readonly number[], place: number, most?: number): Promise<Float32Array[]> {
    const all: Float32Array[] = [];
    for (let step = 0; step < STEPS; step++) {
      all.push(
        await this.#decode(
          ids.map((id) => this.#token(id, step, id, most)),
          place,
        ),
      );
    }
    return all;
  }

  /** The prompt that counts is the one with `own` 0; that of another is shorter and its own. */
  #prompt(sequence: number, own = 0, most = this.#size): Row {
    const length = own === 0 ? this.#size : Math.min(most, Math.max(1, this.#size - (own % this.#size)));
    return { sequence, tokens: Int32Array.from({ length }, (_, index) => this.#id(own, index)), from: 0 };
  }

  #token(sequence: number, step: number, own = 0, most = this.#size): Row {
    const { tokens } = this.#prompt(sequence, own, most);
    return { sequence, tokens: Int32Array.of(this.#id(own, 1000 + step)), from: tokens.length + step };
  }

  #id(own: number, index: number): number {
    return (own * 7919 + index * 104729 + 5) % this.#context.model.vocabulary.size;
  }

  /** @returns the logits behind the last token of the row at `place` */
  async #decode(rows: readonly Row[], place: number): Promise<Float32Array> {
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

/** The sequences of a batch: 0, which is the one that counts, at its place among others. */
function company(size: number, place: number): number[] {
  const ids = Array.from({ length: size }, (_, index) => index + 1);
  ids.splice(place, 0, 0);
  return ids;
}

function same(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  return a.every((row, index) => {
    const other = b[index] as Float32Array;
    return Buffer.from(row.buffer, row.byteOffset, row.byteLength).equals(
      Buffer.from(other.buffer, other.byteOffset, other.byteLength),
    );
  });
}

function notReproducible(reason: string, cause?: unknown): HeadstartError {
  return new HeadstartError('NOT_REPRODUCIBLE', `Replies of this model cannot be reproduced to the bit: ${reason}`, {
    cause,
  });
}
