// Requests pin templates for some time, within a share of the budget.
import { HintPins, type StateStore } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { openStore, stored } from '../helpers/stored-states.js';

/** No test writes an entry. */
const KEYRING = {} as Parameters<HintPins['set']>[1];
const owner = (tenant: string | undefined, affinity?: string) => ({ tenant, affinity });

/** A store of 100 bytes with templates of ten bytes each, and the keys that are pinned. */
function open(...keys: string[]) {
  const { store, clock } = openStore(100);
  for (const key of keys) {
    store.put(stored('template', 10, { key }));
  }
  type Stores = ConstructorParameters<typeof HintPins>[0];
  const pins = new HintPins({ states: store as StateStore, disk: undefined, budget: {} } as unknown as Stores);
  return { store, clock, pins, pinned: () => keys.filter((key) => store.isPinned(key)) };
}

describe('a pin of a hint', () => {
  it('ends after its time, unless a later request renews it', () => {
    const { clock, pins, pinned } = open('a', 'b');
    pins.set(owner('t'), KEYRING, ['a', 'b'], 1000);
    clock.ms += 900;
    pins.set(owner('t'), KEYRING, ['b'], 1000);
    clock.ms += 200;
    expect(pinned()).toEqual(['b']);
  });

  it('does not end the pin that a program set', () => {
    const { store, clock, pins, pinned } = open('a');
    store.setPinned('a', true);
    pins.set(owner('t', 'x'), KEYRING, ['a'], 1000);
    pins.set(owner('t', 'x'), KEYRING, [], 1000);
    clock.ms += 2000;
    expect(pinned()).toEqual(['a']);
  });

  it('is replaced when the next request of the same conversation moves the hint', () => {
    const { pins, pinned } = open('a', 'b', 'c');
    pins.set(owner('t', 'x'), KEYRING, ['a'], 1000);
    pins.set(owner('t', 'y'), KEYRING, ['c'], 1000);
    pins.set(owner('t', 'x'), KEYRING, ['b'], 1000);
    expect(pinned()).toEqual(['b', 'c']);
  });

  it('of one tenant protects at most a quarter of the budget, and all of them at most a half', () => {
    const { pins, pinned } = open('a', 'b', 'c', 'd', 'e', 'f', 'g');
    pins.set(owner('t'), KEYRING, ['a', 'b'], 1000);
    pins.set(owner('t'), KEYRING, ['c'], 1000);
    expect(pinned()).toEqual(['b', 'c']);
    pins.set(owner('u'), KEYRING, ['d', 'e'], 1000);
    pins.set(owner(undefined), KEYRING, ['f', 'g'], 1000);
    expect(pinned()).toEqual(['c', 'd', 'e', 'f', 'g']);
  });

  it('of an entry that does not exist has no effect', () => {
    const { store, pins } = open();
    pins.set(owner('t'), KEYRING, ['a'], 1000);
    expect(store.isPinned('a')).toBe(false);
  });
});
