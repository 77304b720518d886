// Tests how `nThreads: 'auto'` chooses the number of threads, on simulated machines with a clock of their own.
import { ThreadTuner } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../helpers/native.js';

/** Milliseconds for one token, by the number of threads. */
type Costs = (threads: number) => number;

/**
 * Two cores with 0 to 4 busy loops beside the model. Two threads wait for each other many times in each decode, also
 * while one of them does not run.
 */
const TWO_CORES: Record<number, Costs> = {
  0: (threads) => (threads === 1 ? 13.3 : 9.2),
  1: (threads) => (threads === 1 ? 13.8 : 28),
  2: (threads) => (threads === 1 ? 22 : 150),
  4: (threads) => (threads === 1 ? 40 : 400),
};

/**
 * Sixteen cores. Busy loops take memory bandwidth, and if there are more threads than other cores, each decode is ten
 * times slower.
 */
const sixteenCores =
  (loops: number): Costs =>
  (threads) =>
    (10 + 160 / threads) * (1 + loops / 16) * (threads > 16 - loops ? 10 : 1);

const onTwoCores = (loops: number) => TWO_CORES[loops] as Costs;
const lowestCost = (costs: Costs, max: number) =>
  Math.min(...Array.from({ length: max }, (_, index) => costs(index + 1)));

/** The share of the values above a limit. */
const shareAbove = (limit: number, values: readonly number[]) =>
  values.filter((value) => value > limit).length / values.length;

/** A program that decodes all the time. */
class Program {
  now = 1_000_000;
  readonly tuner: ThreadTuner;
  readonly #random: () => number;
  readonly #max: number;

  constructor(max = 2, seed = 1) {
    this.#max = max;
    this.#random = seededRandom(seed);
    this.tuner = new ThreadTuner(max, () => this.now);
  }

  /** Decodes one batch of `tokens` behind 1,000 earlier tokens. Durations vary more on a busy machine. */
  step(costs: Costs, tokens = 1): { threads: number; ms: number } {
    const work = { tokens, cells: 1000 };
    const threads = this.tuner.next(work);
    const mean = tokens * costs(threads);
    const deviation = costs(1) > 13.3 ? 0.4 / Math.sqrt(Math.max(1, mean / 40)) : 0.04;
    const normal = 2 * (this.#random() + this.#random() + this.#random() - 1.5);
    const ms = mean * Math.exp(deviation * normal - deviation ** 2 / 2);
    this.now += ms;
    this.tuner.record(work, ms);
    return { threads, ms };
  }

  /**
   * Decodes for `ms`.
   *
   * @returns `speed`: tokens per second, as a share of those with the best number; `lost`: the share of the time that
   *   decodes with a number other than the current one took too long
   */
  decode(costs: Costs, ms: number): { speed: number; lost: number } {
    const end = this.now + ms;
    let [tokens, total, lost] = [0, 0, 0];
    while (this.now < end) {
      const step = this.step(costs);
      tokens++;
      total += step.ms;
      lost += Math.max(0, costs(step.threads) - costs(this.tuner.status().threads));
    }
    return { speed: (tokens * lowestCost(costs, this.#max)) / total, lost: lost / total };
  }
}

describe("`nThreads: 'auto'` for replies", () => {
  it('keeps all threads on a quiet machine, with 0.98 of their speed', () => {
    const program = new Program();
    expect(program.decode(onTwoCores(0), 60_000).speed).toBeGreaterThan(0.98);
    expect(program.tuner.status()).toEqual({ threads: 2, changes: { slower: 0, faster: 0, routine: 0 } });
  });

  it.each([1, 2, 4])('reaches 0.9 of the best speed within ten seconds beside %i busy loops', (loops) => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const program = new Program(2, seed);
      program.decode(onTwoCores(loops), 10_000);
      const { speed, lost } = program.decode(onTwoCores(loops), 120_000);
      expect(speed).toBeGreaterThan(0.9);
      expect(lost).toBeLessThan(0.03); // the cost of probes
    }
  });

  it('reaches 0.9 of the best speed within ten seconds of nearly every change of the load', () => {
    const speeds: number[] = [];
    for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
      const program = new Program(2, seed);
      for (const loops of [0, 4, 0, 1, 0, 2, 4, 1, 2, 0, 4, 0]) {
        program.decode(onTwoCores(loops), 10_000);
        speeds.push(program.decode(onTwoCores(loops), 10_000).speed);
      }
    }
    expect(shareAbove(0.9, speeds)).toBeGreaterThan(0.9);
  });

  it('finds a good number on a machine with many cores', () => {
    const speeds: number[] = [];
    for (const seed of [1, 2, 3, 4]) {
      const program = new Program(16, seed);
      for (const loops of [0, 4, 0, 8, 1, 0]) {
        program.decode(sixteenCores(loops), 30_000);
        speeds.push(program.decode(sixteenCores(loops), 20_000).speed);
      }
    }
    expect(shareAbove(0.85, speeds)).toBeGreaterThan(0.8);
  });

  it('lets two programs share two cores at 0.9 of the speed of the best pair of numbers', () => {
    // The cost depends on the own threads and on the threads of the other program.
    const beside = (others: number): Costs => {
      const costs = others === 1 ? [13.8, 28] : [20, 150];
      return (threads) => costs[threads - 1] as number;
    };
    const programs = [new Program(2, 1), new Program(2, 2)] as const;
    const threads = [2, 2];
    let tokens = 0;
    const runUntil = (end: number) => {
      for (;;) {
        const index = programs[0].now <= programs[1].now ? 0 : 1;
        if (programs[index].now >= end) {
          return;
        }
        threads[index] = programs[index].step(beside(threads[1 - index] as number)).threads;
        tokens++;
      }
    };
    runUntil(1_010_000);
    tokens = 0;
    runUntil(1_070_000);
    expect((tokens * 13.8) / (2 * 60_000)).toBeGreaterThan(0.9);
  });

  it('reports why the number changed, and how much faster the new number was', () => {
    const program = new Program();
    program.decode(onTwoCores(0), 5_000);
    const loadedAt = program.now;
    program.decode(onTwoCores(4), 10_000);
    const { threads, changes, lastChange } = program.tuner.status();
    expect({ threads, changes }).toEqual({ threads: 1, changes: { slower: 1, faster: 0, routine: 0 } });
    expect(lastChange).toMatchObject({ from: 2, to: 1, reason: 'slower' });
    expect(lastChange?.speedup).toBeGreaterThan(5);
    expect(lastChange?.at).toBeGreaterThan(loadedAt);
    expect(lastChange?.at).toBeLessThan(program.now);
    program.decode(onTwoCores(0), 5_000);
    expect(program.tuner.status()).toMatchObject({ threads: 2, lastChange: { from: 1, to: 2, reason: 'faster' } });
  });

  it('measures nothing on a machine with one core', () => {
    const program = new Program(1);
    expect(program.decode(() => 10, 10_000).lost).toBe(0);
    expect(program.tuner.maxTokens).toBe(Number.POSITIVE_INFINITY);
  });

  it('does not compare decodes of different sizes', () => {
    const program = new Program();
    const random = seededRandom(3);
    const seen = new Set<number>();
    for (let step = 0; step < 5000; step++) {
      const tokens = 1 + Math.floor(random() * 8);
      // A batch costs much more than a single token, but less than several single tokens.
      seen.add(program.step((threads) => (onTwoCores(0)(threads) * (4 + tokens)) / (5 * tokens), tokens).threads);
    }
    expect(seen).toEqual(new Set([1, 2])); // it did probe
    expect(program.tuner.status()).toMatchObject({ threads: 2, changes: { slower: 0, faster: 0, routine: 0 } });
  });

  it('measures again after a pause', () => {
    const program = new Program();
    program.decode(onTwoCores(4), 20_000);
    program.now += 60_000;
    program.decode(onTwoCores(0), 2_000);
    expect(program.tuner.status().threads).toBe(2);
  });
});

describe("`nThreads: 'auto'` for prompts", () => {
  /** Prefills prompts of 2,000 tokens in batches of up to 512 tokens for `ms`. Returns the sizes of the batches. */
  function prefill(program: Program, costs: Costs, ms: number): number[] {
    const sizes: number[] = [];
    for (const end = program.now + ms; program.now < end; ) {
      for (let left = 2000; left > 0; left -= sizes.at(-1) as number) {
        sizes.push(Math.min(left, 512, program.tuner.maxTokens));
        program.step(costs, sizes.at(-1));
      }
    }
    return sizes;
  }

  it('finds the best number, and cuts prompts into short batches only while it measures', () => {
    const program = new Program();
    const quiet: Costs = (threads) => 9 / threads;
    const busy: Costs = (threads) => (threads === 1 ? 14 : 25);
    prefill(program, quiet, 30_000);
    expect(program.tuner.status().threads).toBe(2);
    const sizes = prefill(program, busy, 30_000);
    expect(program.tuner.status().threads).toBe(1);
    expect(Math.min(...sizes)).toBeLessThan(64);
    expect(sizes.filter((size) => size === 512).length).toBeGreaterThan(1);
    prefill(program, quiet, 30_000);
    expect(program.tuner.status().threads).toBe(2);
  });
});
