import fc from 'fast-check';
import { MemoryStore } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';

/** The members of a state that the store uses. */
class Bytes {
  closed = false;
  readonly byteLength: number;
  readonly tokens = new Int32Array(3);

  constructor(byteLength: number) {
    this.byteLength = byteLength;
  }

  close(): void {
    this.closed = true;
  }
}

const state = (byteLength: number) => new Bytes(byteLength) as Bytes & SequenceState;
const template = (bytes: Bytes & SequenceState) => ({ state: bytes, tokens: bytes.tokens, group: '', prefillMs: 1 });

describe('the memory tier', () => {
  it('frees the least recently used states to keep its budget', () => {
    const store = new MemoryStore(100);
    const [a, b, c] = [state(40), state(40), state(40)] as const;
    store.put('a', template(a));
    store.put('b', template(b));
    expect(store.get('a')?.state).toBe(a); // now used more recently than b
    store.put('c', template(c));
    expect(store.get('b')).toBeUndefined();
    expect([a.closed, b.closed, c.closed]).toEqual([false, true, false]);
    expect([store.bytes, store.count]).toEqual([80, 2]);
  });

  it('refuses a state that is larger than the whole budget and does not close it', () => {
    const store = new MemoryStore(100);
    const [small, large] = [state(60), state(101)];
    store.put('small', template(small));
    expect(store.put('large', template(large))).toBe(false);
    expect(large.closed).toBe(false);
    expect(store.get('small')?.state).toBe(small);
  });

  it('keeps the first state of a key and refuses a second one', () => {
    const store = new MemoryStore(100);
    const [first, second] = [state(10), state(20)];
    expect(store.put('a', template(first))).toBe(true);
    expect(store.put('a', template(second))).toBe(false);
    expect(store.get('a')?.state).toBe(first);
    expect(store.bytes).toBe(10);
  });

  it('refuses every state if its budget is 0', () => {
    const store = new MemoryStore(0);
    expect(store.put('a', template(state(1)))).toBe(false);
    expect(store.bytes).toBe(0);
  });

  it('does not evict pinned states, and still keeps its budget', () => {
    const evicted: string[] = [];
    const store = new MemoryStore(100, (key) => evicted.push(key));
    const [pinned, other, large] = [state(60), state(40), state(90)] as const;
    store.setPinned('pinned', true);
    store.put('pinned', template(pinned));
    store.put('other', template(other));
    expect(store.put('large', template(large))).toBe(false);
    expect([pinned.closed, other.closed, large.closed]).toEqual([false, false, false]);
    store.setPinned('pinned', false);
    expect(store.put('large', template(large))).toBe(true);
    expect([pinned.closed, other.closed]).toEqual([true, true]);
    expect(evicted).toEqual(['pinned', 'other']);
  });

  it('frees all states when it is cleared', () => {
    const store = new MemoryStore(100);
    const states = [state(10), state(20)];
    for (const [index, bytes] of states.entries()) {
      store.put(String(index), template(bytes));
    }
    store.clear();
    expect(states.every(({ closed }) => closed)).toBe(true);
    expect([store.bytes, store.count, [...store.entries()].length]).toEqual([0, 0, 0]);
  });

  it('never exceeds its budget and counts its bytes correctly in any order of calls', () => {
    const step = fc.record({
      call: fc.constantFrom('put', 'get', 'delete'),
      key: fc.constantFrom('a', 'b', 'c', 'd'),
      bytes: fc.integer({ min: 1, max: 60 }),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const store = new MemoryStore(100);
        const all: Bytes[] = [];
        for (const { call, key, bytes } of steps) {
          if (call === 'put') {
            const added = state(bytes);
            all.push(added);
            if (!store.put(key, template(added))) {
              added.close();
            }
          } else if (call === 'get') {
            expect((store.get(key)?.state as Bytes | undefined)?.closed ?? false).toBe(false);
          } else {
            store.delete(key);
          }
          const open = all.filter(({ closed }) => !closed);
          expect(store.bytes).toBe(open.reduce((total, { byteLength }) => total + byteLength, 0));
          expect(store.count).toBe(open.length);
          expect(store.bytes).toBeLessThanOrEqual(100);
        }
      }),
    );
  });
});
