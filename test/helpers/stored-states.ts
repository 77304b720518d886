// States that have only a size, for tests of the store.
import { type StateKind, StateStore, type StoredState } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { expect } from 'vitest';

/** The members of a state that the store uses. */
export class Bytes {
  closed = false;
  readonly byteLength: number;

  constructor(byteLength: number) {
    this.byteLength = byteLength;
  }

  close(): void {
    expect(this.closed).toBe(false);
    this.closed = true;
  }
}

export const stateOf = (byteLength: number) => new Bytes(byteLength) as Bytes & SequenceState;
export const isClosed = ({ state }: StoredState) => (state as unknown as Bytes).closed;

export function stored(kind: StateKind, bytes: number, more: Partial<StoredState> = {}): StoredState {
  return { kind, state: stateOf(bytes), tokens: new Int32Array(3), group: '', ...more };
}

/** Opens a store whose clock the test sets. */
export function openStore(maxBytes = 100) {
  const clock = { ms: 0 };
  return { store: new StateStore(maxBytes, () => clock.ms), clock };
}
