// A sequence knows its tokens and its KV cells, whatever it shares with forks.
import { type Engine, type Sequence, StateStore } from 'llama-headstart/internal';
import { describe, expect, it, vi } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { leaseMany, openEngine } from '../helpers/open-engine.js';
import { random } from '../helpers/random.js';

/** A reference model: each sequence is a list of cells, and forks have the same cells in their lists. */
class CellLists {
  readonly #cells = new Map<Sequence, object[]>();

  of(sequence: Sequence): object[] {
    const cells = this.#cells.get(sequence) ?? [];
    this.#cells.set(sequence, cells);
    return cells;
  }

  /** Returns, for each cell of the sequence, the sequences that use the cell. */
  usersOf(sequence: Sequence): Sequence[][] {
    return this.of(sequence).map((cell) => this.#usersOf(cell));
  }

  /** Returns, for each cell, the sequences that use the cell. */
  users(): Sequence[][] {
    return [...new Set([...this.#cells.values()].flat())].map((cell) => this.#usersOf(cell));
  }

  #usersOf(cell: object): Sequence[] {
    return [...this.#cells].filter(([, cells]) => cells.includes(cell)).map(([user]) => user);
  }
}

/** Runs one random operation on one sequence, in the engine and in the reference model. */
async function step(engine: Engine, sequences: readonly Sequence[], lists: CellLists, below: (max: number) => number) {
  const sequence = sequences[below(sequences.length)] as Sequence;
  const cells = lists.of(sequence);
  const other = sequences[below(sequences.length)] as Sequence;
  const action = below(4);
  if (action === 0 && cells.length < 60) {
    const count = 1 + below(12);
    await engine.prefill(sequence, someTokens(count, below(9)));
    cells.push(...Array.from({ length: count }, () => ({})));
  } else if (action === 1 && sequence.isEmpty && !other.isEmpty) {
    await sequence.forkFrom(other);
    cells.push(...lists.of(other));
    expect(sequence.tokens).toEqual(other.tokens);
  } else if (action === 2 && cells.length > 0) {
    const length = below(cells.length + 1);
    expect(await sequence.trim(length)).toBe(true);
    cells.length = length;
  } else if (action === 3 && below(3) === 0) {
    await sequence.clear();
    cells.length = 0;
  }
}

describe('cells that several sequences share', () => {
  it.each([1, 2])('are counted only once, for any forks and trims (seed %i)', async (seed) => {
    const { engine } = await openEngine({ maxSequences: 6 });
    const sequences = await leaseMany(engine, 6);
    const lists = new CellLists();
    const below = random(seed);
    for (let count = 0; count < 100; count++) {
      await step(engine, sequences, lists, below);
      expect(engine.usedCells).toBe(lists.users().length);
      for (const sequence of sequences) {
        const users = lists.usersOf(sequence);
        expect(sequence.length).toBe(users.length);
        expect(sequence.hasUnsharedCells).toBe(users.some(({ length }) => length === 1));
        expect(sequence.unsharedInWindow).toBe(users.filter(({ length }) => length === 1).length);
      }
      const shared = sequences.flatMap((sequence) => [...sequence.sharedInWindow()]);
      const expected = new Map<string, number>();
      for (const users of lists.users()) {
        const name = users
          .map(({ id }) => id)
          .sort()
          .join();
        expected.set(name, (expected.get(name) ?? 0) + (users.length > 1 ? 1 : 0));
      }
      const actual = new Map<string, number>();
      for (const { inWindow, holders } of shared) {
        const name = holders
          .map(({ id }) => id)
          .sort()
          .join();
        actual.set(name, (actual.get(name) ?? 0) + inWindow);
      }
      expect([...actual].sort()).toEqual([...expected].filter(([, cells]) => cells > 0).sort());
    }
    // The KV cache has exactly as many free cells as the engine says.
    for (const sequence of sequences.slice(1)) {
      await sequence.clear();
    }
    const free = engine.context.info.kvCells - engine.usedCells;
    await engine.prefill(sequences[1] as Sequence, someTokens(free, 5));
    expect(engine.usedCells).toBe(engine.context.info.kvCells);
  });
});

describe('a fork', () => {
  it('cannot be made of a sequence that is being trimmed to a checkpoint', async () => {
    const { engine } = await openEngine({ name: 'hybrid', maxSequences: 2, states: new StateStore(2 ** 28) });
    const [source] = (await leaseMany(engine, 1)) as [Sequence];
    await engine.prefill(source, someTokens(100, 1));
    await engine.states.keepCheckpoint(source, 'turn');
    await engine.prefill(source, someTokens(50, 2));
    const trimming = source.trim(100);
    expect(source.canBeForked).toBe(false);
    expect(await trimming).toBe(true);
    expect(source.canBeForked).toBe(true);
  });

  it('that failed leaves no shared cells behind', async () => {
    const { engine } = await openEngine({ maxSequences: 3 });
    const [empty, other, fork] = (await leaseMany(engine, 3)) as [Sequence, Sequence, Sequence];
    await engine.prefill(other, someTokens(50, 1));
    await expect(fork.forkFrom(empty)).rejects.toMatchObject({ code: 'SEQUENCE_EMPTY' });
    await fork.forkFrom(other);
    await engine.prefill(empty, someTokens(20, 2));
    expect(empty.hasUnsharedCells).toBe(true);
    await empty.clear();
    expect([fork.ownCells, engine.usedCells]).toEqual([0, 50]);
  });

  it('of a sequence that is being trimmed has only the tokens that the KV cache still holds', async () => {
    const { engine } = await openEngine({ maxSequences: 2 });
    const [source, fork] = (await leaseMany(engine, 2)) as [Sequence, Sequence];
    await engine.prefill(source, someTokens(200, 1));
    const trimming = source.trim(100);
    await fork.forkFrom(source);
    await trimming;
    expect(fork.tokens).toEqual(someTokens(100, 1));
    expect(await engine.context.positionRange(fork.id)).toEqual({ first: 0, last: 99 });
  });
});

describe('a sequence restored from a state', () => {
  it('cannot be trimmed to a length whose window the state does not hold, even with `fullSlidingWindow`', async () => {
    const { engine } = await openEngine({ name: 'sliding-window', maxSequences: 2, fullSlidingWindow: true });
    const [source, target] = (await leaseMany(engine, 2)) as [Sequence, Sequence];
    await engine.prefill(source, someTokens(200, 1));
    const state = await source.capture();
    await target.restore(state);
    state.close();
    expect([source.trimmableLength(150), target.trimmableLength(150)]).toEqual([150, 0]);
    expect([await source.trim(150), await target.trim(150)]).toEqual([true, false]);
    expect([source.length, target.length]).toEqual([150, 200]);
    expect(target.trimmableLength(200)).toBe(200);
  });

  it('has only the cells of its window in the sliding-window cache', async () => {
    const { engine } = await openEngine({ name: 'sliding-window', maxSequences: 2 });
    const [source, target] = (await leaseMany(engine, 2)) as [Sequence, Sequence];
    const { slidingWindow } = engine.context.model;
    const tokens = someTokens(slidingWindow + 50, 1);
    await engine.prefill(source, tokens);
    const state = await source.capture();
    await target.restore(state);
    state.close();
    expect(target.tokens).toEqual(tokens);
    expect([source.unsharedInWindow, target.unsharedInWindow]).toEqual([tokens.length, slidingWindow]);
    await engine.prefill(target, someTokens(10, 2));
    expect(target.unsharedInWindow).toBe(slidingWindow + 10);
  });

  it.each([
    ['sliding-window', 1],
    ['dense', 0],
  ] as const)('wakes work that waits for cells when it gives up shared cells, on the %s model', async (name, wakes) => {
    const { engine } = await openEngine({ name });
    const [source, fork] = (await leaseMany(engine, 2)) as [Sequence, Sequence];
    await engine.prefill(source, someTokens(20, 1));
    await fork.forkFrom(source);
    const woken = vi.spyOn(engine.context, 'onFreed');
    await fork.clear();
    expect(woken).toHaveBeenCalledTimes(wakes);
  });
});
