import fc from 'fast-check';
import { MemoryStore } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';

/** The store asks a state for its size, its token count and its end. */
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
const held = (bytes: Bytes & SequenceState) => ({ state: bytes, tokens: bytes.tokens, group: '', prefillMs: 1 });

describe('the memory tier', () => {
  it('drops the least recently used states to stay in its budget, and lets their bytes go', () => {
    const store = new MemoryStore(100);
    const [a, b, c] = [state(40), state(40), state(40)] as const;
    store.put('a', held(a));
    store.put('b', held(b));
    expect(store.get('a')?.state).toBe(a); // now the newer one
    store.put('c', held(c));
    expect(store.get('b')).toBeUndefined();
    expect([a.closed, b.closed, c.closed]).toEqual([false, true, false]);
    expect([store.bytes, store.count]).toEqual([80, 2]);
  });

  it('leaves a state larger than the whole budget to its caller', () => {
    const store = new MemoryStore(100);
    const [small, large] = [state(60), state(101)];
    store.put('small', held(small));
    expect(store.put('large', held(large))).toBe(false);
    expect(large.closed).toBe(false);
    expect(store.get('small')?.state).toBe(small);
  });

  it('keeps the state it has under a key', () => {
    const store = new MemoryStore(100);
    const [first, second] = [state(10), state(20)];
    expect(store.put('a', held(first))).toBe(true);
    expect(store.put('a', held(second))).toBe(false);
    expect(store.get('a')?.state).toBe(first);
    expect(store.bytes).toBe(10);
  });

  it('keeps nothing with a budget of 0, but what has no bytes', () => {
    const store = new MemoryStore(0);
    expect(store.put('a', held(state(1)))).toBe(false);
    expect(store.bytes).toBe(0);
  });

  it('keeps what is pinned, and its budget all the same', () => {
    const evicted: string[] = [];
    const store = new MemoryStore(100, (key) => evicted.push(key));
    const [pinned, other, large] = [state(60), state(40), state(90)] as const;
    store.setPinned('pinned', true);
    store.put('pinned', held(pinned));
    store.put('other', held(other));
    expect(store.put('large', held(large))).toBe(false);
    expect([pinned.closed, other.closed, large.closed]).toEqual([false, false, false]);
    store.setPinned('pinned', false);
    expect(store.put('large', held(large))).toBe(true);
    expect([pinned.closed, other.closed]).toEqual([true, true]);
    expect(evicted).toEqual(['pinned', 'other']);
  });

  it('lets everything go when cleared', () => {
    const store = new MemoryStore(100);
    const states = [state(10), state(20)];
    states.forEach((each, index) => {
      store.put(String(index), held(each));
    });
    store.clear();
    expect(states.every((each) => each.closed)).toBe(true);
    expect([store.bytes, store.count, [...store.entries()].length]).toEqual([0, 0, 0]);
  });

  it('never holds more than its budget, and knows its bytes, whatever is put, asked for and deleted', () => {
    const step = fc.record({
      what: fc.constantFrom('put', 'get', 'delete'),
      key: fc.constantFrom('a', 'b', 'c', 'd'),
      bytes: fc.nat({ max: 60 }),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const store = new MemoryStore(100);
        const all = new Map<Bytes, string>();
        for (const { what, key, bytes } of steps) {
          if (what === 'put') {
            const made = state(bytes);
            all.set(made, key);
            if (!store.put(key, held(made))) {
              made.close();
            }
          } else if (what === 'get') {
            expect((store.get(key)?.state as Bytes | undefined)?.closed ?? false).toBe(false);
          } else {
            store.delete(key);
          }
          const open = [...all.keys()].filter((each) => !each.closed);
          expect(store.bytes).toBe(open.reduce((total, each) => total + each.byteLength, 0));
          expect(store.count).toBe(open.length);
          expect(store.bytes).toBeLessThanOrEqual(100);
        }
      }),
    );
  });
});
