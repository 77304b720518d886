// Runs random programs of decodes, checkpoints, restores, forks and removals. After each decode, a second context
// decodes all tokens of the sequence again. Both contexts must compute the same logits, except for noise.
import { type Context, type KvLayout, Model, type SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf, largestDifference, prefill, seededRandom } from '../helpers/native.js';

// To search longer: LLAMA_HEADSTART_RANDOM_SEED=7 LLAMA_HEADSTART_RANDOM_CALLS=2000 npm test -- partial-state-programs
const seed = Number(process.env.LLAMA_HEADSTART_RANDOM_SEED ?? 1);
const steps = Number(process.env.LLAMA_HEADSTART_RANDOM_CALLS ?? 50);

/**
 * The number of sequences that a program uses. The context has MAX_SEQUENCES sequences, because forks need a large
 * sliding-window cache, and the size of that cache grows with the number of sequences.
 */
const SEQUENCES = 4;
const MAX_SEQUENCES = 12;
/** The maximum length of a sequence in tokens: more than two sliding windows. */
const MAX_LENGTH = 160;
/** Logits differ by less than this if the cells are at other places or the batches are different. */
const NOISE = 0.05;

interface Checkpoint {
  tokens: number[];
  state: SequenceState;
}

class RandomProgram {
  /** For each operation: how often the program ran it. */
  readonly done: Record<string, number> = {};
  readonly #model: Model;
  readonly #context: Context;
  readonly #reference: Context;
  readonly #random = seededRandom(seed);
  /** The tokens of each sequence. */
  readonly #held: number[][] = Array.from({ length: SEQUENCES }, () => []);
  readonly #checkpoints: Checkpoint[] = [];

  constructor(model: Model, context: Context, reference: Context) {
    this.#model = model;
    this.#context = context;
    this.#reference = reference;
  }

  async step(): Promise<void> {
    const operations = [
      ...[this.#decode, this.#decode, this.#decode, this.#checkpoint, this.#rollBack, this.#rollBack, this.#rollBack],
      ...[this.#restore, this.#fork, this.#remove],
    ];
    let name = 'nothing';
    while (name === 'nothing') {
      const operation = this.#pick(operations) as () => Promise<string>;
      name = await operation.call(this);
    }
    this.done[name] = (this.done[name] ?? 0) + 1;
    for (const [sequence, tokens] of this.#held.entries()) {
      expect((await this.#context.positionRange(sequence)).last, `sequence ${sequence}`).toBe(tokens.length - 1);
    }
  }

  /** Continues each sequence that holds tokens. */
  async finish(): Promise<void> {
    for (const [sequence, tokens] of this.#held.entries()) {
      if (tokens.length > 0) await this.#decodeIn(sequence, 1);
    }
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[this.#below(items.length)];
  }

  async #decode(): Promise<string> {
    const sequence = this.#below(SEQUENCES);
    const free = MAX_LENGTH - (this.#held[sequence] as number[]).length;
    return free === 0 ? 'nothing' : this.#decodeIn(sequence, Math.min(free, 1 + this.#below(40)));
  }

  async #decodeIn(sequence: number, count: number): Promise<string> {
    const { size } = this.#model.info.vocabulary;
    const held = this.#held[sequence] as number[];
    const added = Int32Array.from({ length: count }, () => this.#below(size));
    await prefill(this.#context, sequence, added, held.length);
    const logits = await this.#context.logits(count - 1);
    held.push(...added);
    await this.#reference.clear();
    await prefill(this.#reference, 0, Int32Array.from(held));
    const batchSize = this.#reference.info.batchSize;
    const expected = await this.#reference.logits((held.length - 1) % batchSize);
    expect(largestDifference([logits], [expected]), `sequence ${sequence} of ${held.length} tokens`).toBeLessThan(
      NOISE,
    );
    return 'decode';
  }

  async #checkpoint(): Promise<string> {
    const sequence = this.#below(SEQUENCES);
    const tokens = [...(this.#held[sequence] as number[])];
    if (tokens.length === 0) return 'nothing';
    const state = await this.#context.captureSequence(sequence, Int32Array.from(tokens), { partial: true });
    this.#checkpoints.push({ tokens, state });
    return 'checkpoint';
  }

  /** Restores a checkpoint into a sequence that was continued after the checkpoint. */
  async #rollBack(): Promise<string> {
    const possible = this.#checkpoints.flatMap((checkpoint) =>
      [...this.#held.keys()]
        .filter((sequence) => this.#extends(sequence, checkpoint))
        .map((sequence) => ({ sequence, checkpoint })),
    );
    const { sequence, checkpoint } = this.#pick(possible) ?? {};
    if (sequence === undefined || checkpoint === undefined) return 'nothing';
    await this.#context.restoreSequence(sequence, checkpoint.state);
    this.#held[sequence] = [...checkpoint.tokens];
    return 'roll back';
  }

  /** Tries to restore a checkpoint into a shorter sequence. Only recurrent memory allows that. */
  async #restore(): Promise<string> {
    const { tokens, state } = this.#pick(this.#checkpoints) ?? {};
    const sequence = this.#held.findIndex(({ length }) => length < (tokens?.length ?? 0));
    if (tokens === undefined || state === undefined || sequence < 0) return 'nothing';
    const code = await codeOf(() => this.#context.restoreSequence(sequence, state));
    expect(code).toBe(this.#model.info.recurrent ? 'none' : 'TOKENS_MISMATCH');
    if (code === 'none') this.#held[sequence] = [...tokens];
    return 'restore';
  }

  #extends(sequence: number, { tokens }: Checkpoint): boolean {
    const held = this.#held[sequence] as number[];
    return held.length > tokens.length && tokens.every((token, position) => held[position] === token);
  }

  /** Replaces a sequence with a fork of another sequence. */
  async #fork(): Promise<string> {
    const [source, target] = [this.#below(SEQUENCES), this.#below(SEQUENCES)];
    const tokens = this.#held[source] as number[];
    if (this.#context.info.kvLayout === 'split' || target === source || tokens.length === 0) return 'nothing';
    await this.#context.removeSequence(target);
    await this.#context.copySequence(source, target);
    this.#held[target] = [...tokens];
    return 'fork';
  }

  async #remove(): Promise<string> {
    const sequence = this.#below(SEQUENCES);
    const isLong = (this.#held[sequence] as number[]).length > MAX_LENGTH / 2;
    if (!isLong) return 'nothing';
    await this.#context.removeSequence(sequence);
    this.#held[sequence] = [];
    return 'remove';
  }
}

describe.each(['sliding-window', 'recurrent', 'hybrid'] as const)('a random program with a %s model', (kind) => {
  it.each(['unified', 'split'] as const)(
    'computes the same logits as a fresh decode of all tokens, in the %s layout',
    async (kvLayout: KvLayout) => {
      const model = await Model.load({ path: microModel(kind) });
      const options = { batchSize: 64, flashAttention: false };
      const context = await model.createContext({
        ...options,
        kvCells: 256 * MAX_SEQUENCES,
        maxSequences: MAX_SEQUENCES,
        kvLayout,
      });
      const reference = await model.createContext({ ...options, kvCells: 256 });
      const program = new RandomProgram(model, context, reference);
      for (let step = 0; step < steps; step++) {
        await program.step();
      }
      await program.finish();
      expect(program.done['roll back']).toBeGreaterThan(0);
      expect(program.done.decode).toBeGreaterThan(10);
      if (kvLayout === 'unified') expect(program.done.fork).toBeGreaterThan(0);
      await model.close();
    },
  );
});
