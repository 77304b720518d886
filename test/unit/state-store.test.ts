// `StateStore` keeps states within one budget. The states in these tests have only a size. The integration tests use
// real states.
import fc from 'fast-check';
import { StateSizes, type StateStore, type StoredState } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { type Bytes, isClosed, openStore, stateOf, stored } from '../helpers/stored-states.js';

const ELEVEN_MINUTES = 660_000;

describe('the order in which states are dropped', () => {
  /**
   * Adds one state of 20 bytes for each class. Returns the states in the order in which they are dropped. Only `recent`
   * was used in the last eleven minutes.
   */
  function fill(store: StateStore, clock: { ms: number }) {
    const idle = [
      stored('template', 20, { key: 'pinned' }),
      stored('conversation', 20, { inProgress: () => true }),
      stored('template', 20),
      stored('conversation', 20),
      stored('request', 20, { inProgress: () => true }),
    ] as const;
    store.setPinned('pinned', true);
    for (const each of idle) {
      store.put(each);
    }
    clock.ms = ELEVEN_MINUTES;
    const recent = stored('template', 20);
    store.put(recent);
    const [pinned, inProgress, template, conversation, request] = idle;
    return { request, conversation, template, recent, inProgress, pinned };
  }

  it('is: one-off requests, idle conversations, idle templates, recently used states, turns in progress', () => {
    const { store, clock } = openStore(120);
    const all = fill(store, clock);
    const order: string[] = [];
    for (let count = 0; count < 5; count++) {
      const present = Object.entries(all).filter(([, each]) => store.has(each));
      store.put(stored('conversation', 20, { inProgress: () => true, key: `new ${count}` }));
      order.push(...present.filter(([, each]) => !store.has(each)).map(([name]) => name));
    }
    expect(order).toEqual(['request', 'conversation', 'template', 'recent', 'inProgress']);
    expect(store.has(all.pinned)).toBe(true);
  });

  it.each([
    ['a one-off request', 'request', ['request']],
    ['a template', 'template', ['request', 'conversation', 'template', 'recent']],
  ] as const)('lets %s displace only states of its own or a lower class', (_, kind, expected) => {
    const { store, clock } = openStore(120);
    const all = fill(store, clock);
    const isPresent = ([, each]: [string, StoredState]) => store.has(each);
    const added: StoredState[] = [];
    // The new states are held, so that they do not displace each other.
    for (let next = stored(kind, 20); store.put(next); next = stored(kind, 20)) {
      store.hold(next);
      added.push(next);
    }
    const gone = Object.entries(all).filter((each) => !isPresent(each));
    expect(gone.map(([name]) => name)).toEqual(expected);
    expect(added).toHaveLength(expected.length);
  });

  it('is the order of last use within a class', () => {
    const { store } = openStore();
    const [a, b, c] = [stored('template', 40), stored('template', 40), stored('template', 40)];
    store.put(a);
    store.put(b);
    store.hold(a)();
    expect(store.put(c)).toBe(true);
    expect([a, b, c].map((each) => store.has(each))).toEqual([true, false, true]);
    expect([a, b, c].map(isClosed)).toEqual([false, true, false]);
  });

  it('changes when time passes, a turn ends, or a state is used or unpinned', () => {
    const { store, clock } = openStore(40);
    let inProgress = true;
    const [turn, pinned] = [
      stored('conversation', 20, { inProgress: () => inProgress }),
      stored('template', 20, { key: 'k' }),
    ];
    store.setPinned('k', true);
    store.put(turn);
    store.put(pinned);
    const fits = () => store.put(stored('template', 20));
    expect(fits()).toBe(false);
    inProgress = false;
    expect(fits()).toBe(true);
    expect(store.has(turn)).toBe(false);
    clock.ms = ELEVEN_MINUTES;
    expect(fits()).toBe(true); // displaces the template that was added before
    store.setPinned('k', false);
    expect(fits()).toBe(true);
    expect(store.has(pinned)).toBe(false);
  });
});

describe('a state', () => {
  it('larger than the whole budget displaces nothing, is refused and stays open', () => {
    const { store } = openStore();
    const [small, large] = [stored('request', 60), stored('template', 101)];
    store.put(small);
    expect(store.put(large)).toBe(false);
    expect([small, large].map(isClosed)).toEqual([false, false]);
    expect(store.status()).toMatchObject({ bytes: 60, count: 1, byKind: { request: { count: 1, bytes: 60 } } });
  });

  it('with a key is found by its key, and a second state with the same key is refused', () => {
    const { store } = openStore();
    const [first, second] = [stored('template', 10, { key: 'k' }), stored('template', 20, { key: 'k' })];
    expect([first, second].map((each) => store.put(each))).toEqual([true, false]);
    expect(store.find('k')).toBe(first);
    store.drop(first);
    expect(store.find('k')).toBeUndefined();
    expect(store.put(second)).toBe(true);
  });

  it('calls `onEvicted` if it is displaced, and not if its owner drops it', () => {
    const { store } = openStore();
    const evicted: string[] = [];
    const named = (name: string) => stored('template', 60, { onEvicted: () => evicted.push(name) });
    const [first, second] = [named('first'), named('second')];
    store.put(first);
    store.put(second);
    store.drop(second);
    expect(evicted).toEqual(['first']);
  });

  it('stays open and counts towards the budget while it is read, although it was dropped', () => {
    const { store } = openStore();
    const [read, other] = [stored('conversation', 80), stored('conversation', 40)];
    store.put(read);
    const releases = [store.hold(read), store.hold(read)];
    expect(store.put(other)).toBe(false); // displacing the first state would free no memory
    store.drop(read);
    expect(store.status()).toMatchObject({ bytes: 0, count: 0, transferBytes: 80 });
    expect(store.put(other)).toBe(false);
    for (const release of [releases[0], releases[0], releases[1]]) {
      expect(isClosed(read)).toBe(false);
      release?.();
    }
    expect(isClosed(read)).toBe(true);
    expect(store.status().transferBytes).toBe(0);
    expect(store.put(other)).toBe(true);
  });

  it('is freed when its kind is cleared or the store is closed, and a closed store accepts no state', () => {
    const { store } = openStore();
    const [template, conversation] = [stored('template', 10), stored('conversation', 10)];
    store.put(template);
    store.put(conversation);
    store.clear('request', 'conversation');
    expect([template, conversation].map(isClosed)).toEqual([false, true]);
    store.close();
    store.close();
    expect(isClosed(template)).toBe(true);
    expect(store.put(stored('template', 1))).toBe(false);
    expect(store.transfers.begin({ kind: 'template' }, 1)).toBeUndefined();
    expect(store.status()).toMatchObject({ bytes: 0, count: 0, transferBytes: 0 });
  });
});

describe('the expected size of a state', () => {
  it('is known after states of two lengths, for memory of any kind', () => {
    for (const sizeOf of [(tokens: number) => 12 * tokens, () => 5000, (tokens: number) => 700 + 3 * tokens]) {
      const sizes = new StateSizes();
      expect(sizes.expect(10)).toBeUndefined();
      sizes.note(10, sizeOf(10));
      expect([sizes.expect(10), sizes.expect(20)]).toEqual([sizeOf(10), undefined]);
      for (const tokens of [30, 20, 10, 500]) {
        sizes.note(tokens, sizeOf(tokens));
      }
      expect([0, 10, 25, 10_000].map((tokens) => sizes.expect(tokens))).toEqual([0, 10, 25, 10_000].map(sizeOf));
    }
  });
});

describe('a store in any order of calls', () => {
  const BUDGET = 100;
  const KINDS = ['request', 'conversation', 'template'] as const;

  /** A state as the simple model sees it. */
  interface Item {
    stored: StoredState;
    bytes: number;
    usedAt: number;
    /** Position in the order of use. */
    lastUse: number;
    releases: (() => void)[];
  }

  /** A simple model of the store, which follows the same rules without optimizations. */
  class Model {
    items: Item[] = [];
    dropped: Item[] = [];
    pinned = new Set<string>();
    now = 0;
    uses = 0;

    rank({ kind, key, inProgress }: StoredState, usedAt: number): number {
      const classes = [
        kind === 'request',
        kind === 'conversation',
        kind === 'template',
        this.now - usedAt < 600_000,
        inProgress?.(),
        this.pinned.has(key as string),
      ];
      return kind === 'request' ? 0 : classes.lastIndexOf(true);
    }

    put(stored: StoredState): boolean {
      const bytes = stored.state.byteLength;
      if (this.items.some(({ stored: { key } }) => key !== undefined && key === stored.key)) {
        return false;
      }
      const own = this.rank(stored, this.now);
      const leaving: Item[] = [];
      const used = () =>
        [...this.items.filter((item) => !leaving.includes(item)), ...this.dropped].reduce(
          (sum, item) => sum + item.bytes,
          0,
        );
      while (used() + bytes > BUDGET) {
        const [next] = this.items
          .filter((item) => !leaving.includes(item) && item.releases.length === 0)
          .filter((item) => this.rank(item.stored, item.usedAt) <= own && !this.pinned.has(item.stored.key as string))
          .sort((a, b) => this.rank(a.stored, a.usedAt) - this.rank(b.stored, b.usedAt) || a.lastUse - b.lastUse);
        if (next === undefined) {
          return false;
        }
        leaving.push(next);
      }
      this.items = this.items.filter((item) => !leaving.includes(item));
      this.items.push({ stored, bytes, usedAt: this.now, lastUse: this.uses++, releases: [] });
      return true;
    }
  }

  const step = fc.record({
    call: fc.constantFrom('put', 'put', 'put', 'hold', 'release', 'drop', 'wait', 'turn', 'pin', 'clear'),
    kind: fc.constantFrom(...KINDS),
    bytes: fc.integer({ min: 1, max: 120 }),
    index: fc.nat({ max: 9 }),
  });

  it('keeps the same states as a simple model of its rules', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { store, clock } = openStore(BUDGET);
        const model = new Model();
        const all: StoredState[] = [];
        const turns = [false, false, false];
        for (const { call, kind, bytes, index } of steps) {
          const item = model.items[index % Math.max(1, model.items.length)];
          if (call === 'put') {
            const key = kind === 'template' ? `key ${index}` : undefined;
            const next = stored(kind, bytes, { key, inProgress: () => turns[index % turns.length] === true });
            all.push(next);
            const isStored = store.put(next);
            expect(isStored).toBe(model.put(next));
            if (!isStored) {
              next.state.close();
            }
          } else if (call === 'hold' && item !== undefined) {
            item.releases.push(store.hold(item.stored));
            Object.assign(item, { usedAt: model.now, lastUse: model.uses++ });
          } else if (call === 'release') {
            const held = [...model.items, ...model.dropped].find(({ releases }) => releases.length > 0);
            held?.releases.pop()?.();
            model.dropped = model.dropped.filter(({ releases }) => releases.length > 0);
          } else if (call === 'drop' && item !== undefined) {
            store.drop(item.stored);
            model.items = model.items.filter((other) => other !== item);
            model.dropped.push(...[item].filter(({ releases }) => releases.length > 0));
          } else if (call === 'clear' && index === 0) {
            store.clear(kind);
            const cleared = model.items.filter(({ stored: { kind: other } }) => other === kind);
            model.items = model.items.filter((other) => !cleared.includes(other));
            model.dropped.push(...cleared.filter(({ releases }) => releases.length > 0));
          } else if (call === 'wait') {
            model.now = clock.ms += 100_000 * index;
          } else if (call === 'turn') {
            turns[index % turns.length] = !turns[index % turns.length];
          } else if (call === 'pin') {
            const isPinned = bytes % 2 === 0;
            store.setPinned(`key ${index}`, isPinned);
            model.pinned[isPinned ? 'add' : 'delete'](`key ${index}`);
          }
          const open = [...model.items, ...model.dropped].map((each) => each.stored);
          expect(all.filter((each) => !isClosed(each))).toEqual(all.filter((each) => open.includes(each)));
          expect(all.filter((each) => store.has(each))).toHaveLength(model.items.length);
          const { bytes: kept, count, transferBytes } = store.status();
          expect(count).toBe(model.items.length);
          expect(kept).toBe(model.items.reduce((sum, each) => sum + each.bytes, 0));
          expect(transferBytes).toBe(model.dropped.reduce((sum, each) => sum + each.bytes, 0));
          expect(kept + transferBytes).toBeLessThanOrEqual(BUDGET);
        }
      }),
    );
  });

  it('never exceeds its budget by more than one transfer, and closes each state once', () => {
    const move = fc.record({
      call: fc.constantFrom('begin', 'begin', 'accept', 'accept', 'put', 'end', 'drop'),
      kind: fc.constantFrom(...KINDS),
      expected: fc.option(fc.integer({ min: 0, max: 130 }), { nil: undefined }),
      bytes: fc.integer({ min: 1, max: 130 }),
      index: fc.nat({ max: 4 }),
    });
    fc.assert(
      fc.property(fc.array(move, { maxLength: 40 }), (moves) => {
        const { store } = openStore(BUDGET);
        const running: {
          transfer: NonNullable<ReturnType<typeof store.transfers.begin>>;
          state?: Bytes & SequenceState;
        }[] = [];
        const all: (Bytes & SequenceState)[] = [];
        const end = (at: number) => running.splice(at, 1)[0]?.transfer.end();
        for (const { call, kind, expected, bytes, index } of moves) {
          const at = index % Math.max(1, running.length);
          const current = running[at];
          if (call === 'begin') {
            const transfer = store.transfers.begin({ kind }, expected);
            if (transfer !== undefined) {
              running.push({ transfer });
            }
          } else if (call === 'accept' && current !== undefined && current.state === undefined) {
            const state = stateOf(bytes);
            all.push(state);
            if (current.transfer.accept(state)) {
              current.state = state;
            } else {
              running.splice(at, 1);
            }
          } else if (call === 'put' && current?.state !== undefined) {
            if (store.put(stored(kind, 0, { state: current.state }), current.transfer)) {
              running.splice(at, 1);
            }
          } else if (call === 'end') {
            end(at);
          } else if (call === 'drop') {
            const [first] = store.values(kind);
            if (first !== undefined) {
              store.drop(first);
            }
          }
          const { bytes: kept, transferBytes } = store.status();
          const sizes = running.map(({ transfer }) => transfer.bytes);
          expect(transferBytes).toBe(sizes.reduce((sum, size) => sum + size, 0));
          expect(kept).toBeLessThanOrEqual(BUDGET);
          expect(kept + transferBytes - Math.max(0, ...sizes)).toBeLessThanOrEqual(BUDGET);
          const open = all.filter(({ closed }) => !closed).reduce((sum, { byteLength }) => sum + byteLength, 0);
          const unaccepted = running.filter(({ state }) => state === undefined);
          expect(open).toBe(kept + transferBytes - unaccepted.reduce((sum, { transfer }) => sum + transfer.bytes, 0));
        }
      }),
    );
  });
});
