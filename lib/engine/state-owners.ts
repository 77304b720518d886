import type { ForgetCalls, IsForgotten } from './forget-calls.js';
import type { Sequence } from './sequence.js';
import type { Captured } from './state-captures.js';
import type { StateStore, StoredState } from './state-store.js';
import type { StateTransfer } from './state-transfers.js';

/**
 * The sequences that may continue from each state in the store. A state may have several owners, because forks share
 * the checkpoints and the swapped-out state of their source. The store drops a state when its last owner releases it,
 * or when another state needs its bytes.
 */
export class StateOwners {
  readonly #store: StateStore;
  readonly #forgets: ForgetCalls;
  readonly #onEvicted: (owner: Sequence) => void;
  readonly #owners = new WeakMap<StoredState, Set<Sequence>>();

  /** @param onEvicted called for each owner after the store has dropped a state for another one */
  constructor(store: StateStore, forgets: ForgetCalls, onEvicted: (owner: Sequence) => void) {
    this.#store = store;
    this.#forgets = forgets;
    this.#onEvicted = onEvicted;
  }

  /**
   * Puts a state of a sequence into the store.
   *
   * @param transfer owns the state until the store has it
   * @returns undefined if the state does not fit or must be forgotten
   */
  put(sequence: Sequence, { tokens, group, state, epoch }: Captured, transfer: StateTransfer): StoredState | undefined {
    const owners = new Set([sequence]);
    const { kind, affinity, tenant } = sequence;
    if (this.#forgets.concern({ affinity, tenant, epoch })) {
      return undefined;
    }
    const stored: StoredState = {
      get kind() {
        return [...owners].some((owner) => owner.kind === 'conversation') ? 'conversation' : kind;
      },
      affinity,
      tenant,
      tokens,
      group,
      state,
      isPartial: state.isPartial,
      inProgress: () => [...owners].some((owner) => owner.inProgress),
      onEvicted: () => queueMicrotask(() => owners.forEach(this.#onEvicted)), // the store is still making space now
    };
    if (!this.#store.put(stored, transfer)) {
      return undefined;
    }
    this.#owners.set(stored, owners);
    return stored;
  }

  /** The owners of a state. */
  of(stored: StoredState): Sequence[] {
    return [...(this.#owners.get(stored) ?? [])];
  }

  /** Adds an owner of a state. */
  add(stored: StoredState, owner: Sequence): void {
    this.#owners.get(stored)?.add(owner);
  }

  /** Whether the state, or one of the sequences that may continue from it, must be forgotten. */
  isForgotten(stored: StoredState, isForgotten: IsForgotten): boolean {
    return [stored, ...this.of(stored)].some(isForgotten);
  }

  /** Removes an owner of a state. Drops the state if it has no other owner. */
  release(stored: StoredState, owner: Sequence): void {
    const owners = this.#owners.get(stored);
    owners?.delete(owner);
    if (owners?.size === 0) {
      this.#store.drop(stored);
    }
  }
}
