// Keeps every KV state that is outside the KV cache, within one budget of bytes.
import { LRUCache } from 'lru-cache';
import type { SequenceState } from '../native/state.js';
import { type StateTransfer, StateTransfers } from './state-transfers.js';

/**
 * `template`: the prefix of all sessions with one system prompt and tools. `conversation`: the state of a session.
 * `request`: the state of a single request, which no later request is known to continue.
 */
export type StateKind = 'request' | 'conversation' | 'template';

/** Says how long a state is worth keeping. */
export interface StateOwner {
  readonly kind: StateKind;
  /** Identifies a template. Only a state with a key can be found by its key and be pinned. */
  readonly key?: string | undefined;
  /** Whether a turn that needs the state is in progress now. @default never */
  readonly inProgress?: (() => boolean) | undefined;
}

/** A state with the tokens that it holds. The object also serves as the handle of the state in the store. */
export interface StoredState extends StateOwner {
  readonly state: SequenceState;
  /** One token for each position. Never changed. */
  readonly tokens: Int32Array;
  /** States of one group are never used for another: see `groupOf`. */
  readonly group: string;
  /** See `Sequence.affinity`. */
  readonly affinity?: string | undefined;
  /** See `Sequence.tenant`. */
  readonly tenant?: string | undefined;
  /**
   * Whether the state holds only the part that cannot be trimmed: see {@link SequenceState.isPartial}. @default false
   */
  readonly isPartial?: boolean | undefined;
  /** Duration of the prefill that this state replaces, ms. */
  readonly prefillMs?: number | undefined;
  /** Whether the state has left the store. Set by the store. */
  isDropped?: boolean;
  /** Called after the state was dropped because another state needed its bytes. */
  readonly onEvicted?: (() => void) | undefined;
}

/** States of one kind. */
export interface StateCount {
  /** Number of states. */
  count: number;
  /** Their size in bytes. */
  bytes: number;
}

/** The KV states that this process keeps outside the KV cache. */
export interface StateStoreStatus extends StateCount {
  /** Budget: `cache.maxMemoryBytes`. */
  maxBytes: number;
  /**
   * Bytes of states that are being captured, read, restored or written and are not in the store. One such transfer at
   * a time may exceed the budget.
   */
  transferBytes: number;
  /** The states by kind. */
  byKind: Record<StateKind, StateCount>;
}

/**
 * The order in which states are dropped. A state displaces only states of its own or a lower rank, and no pinned
 * states.
 */
const RANK = { request: 0, conversation: 1, template: 2, recent: 3, inProgress: 4, pinned: 5 } as const;

/** A state that was used within this time, ms, is more likely to be used again than other states of its kind. */
const RECENT_MS = 600_000;

interface Entry {
  readonly stored: StoredState;
  readonly bytes: number;
  usedAt: number;
  /** Restores and writes in progress. Dropping a held state would free no memory. */
  holds: number;
}

/**
 * All states outside the KV cache, by rank and last use. The sum of stored states and transfers never exceeds the
 * budget, except by one transfer.
 */
export class StateStore {
  readonly maxBytes: number;
  /** The states that are being copied. */
  readonly transfers = new StateTransfers((bytes, owner) => this.#makeSpace(bytes, owner));
  readonly #now: () => number;
  /** `#makeSpace` enforces the budget, because the order of use alone does not decide which state is dropped. */
  readonly #entries = new LRUCache<StoredState, Entry>({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: ({ bytes }) => bytes,
    dispose: (entry) => this.#onRemoved(entry),
  });
  readonly #byKey = new Map<string, StoredState>();
  readonly #pinned = new Set<string>();
  /** Keys that are pinned for a limited time, with the ends of these times. */
  readonly #pinnedUntil = new Map<string, number>();
  /** Bytes of dropped states that a restore or a write still holds. */
  #droppedBytes = 0;
  #closed = false;

  /** @param now a clock in ms */
  constructor(maxBytes: number, now: () => number = () => performance.now()) {
    this.maxBytes = maxBytes;
    this.#now = now;
  }

  /**
   * All states of one kind, beginning with the least recently used.
   *
   * @param kind @default all kinds
   */
  values(kind?: StateKind): StoredState[] {
    return [...this.#entries.rkeys()].filter((stored) => kind === undefined || stored.kind === kind);
  }

  has(stored: StoredState): boolean {
    return this.#entries.has(stored);
  }

  find(key: string): StoredState | undefined {
    return this.#byKey.get(key);
  }

  /**
   * Stores a state and takes ownership of it.
   *
   * @param transfer the transfer that received the state. The transfer ends if the state is stored.
   * @returns false if the state does not fit or its key is already stored. The caller or the transfer then still owns
   *   the state.
   */
  put(stored: StoredState, transfer?: StateTransfer): boolean {
    const bytes = stored.state.byteLength;
    const reserved = transfer === undefined ? 0 : this.transfers.reservedBy(transfer);
    const isKnown = stored.key !== undefined && this.#byKey.has(stored.key);
    if (this.#closed || isKnown || !this.#makeSpace(bytes - reserved, stored)) {
      return false;
    }
    const entry = { stored, bytes, usedAt: this.#now(), holds: 0 };
    this.#entries.set(stored, entry);
    if (stored.key !== undefined) {
      this.#byKey.set(stored.key, stored);
    }
    if (transfer !== undefined) {
      entry.holds++; // a transfer that waits must not displace the state before the caller can hold it
      transfer.takeState();
      entry.holds--;
      queueMicrotask(() => this.transfers.serveWaiting());
    }
    return true;
  }

  /**
   * Marks a state as used, and keeps its bytes in memory during a restore or a write, even if the store drops the
   * state.
   *
   * @returns a function that ends the hold
   */
  hold(stored: StoredState): () => void {
    const entry = this.#entries.get(stored);
    if (entry === undefined) {
      throw new Error('Expected a stored state, but it was dropped');
    }
    entry.usedAt = this.#now();
    entry.holds++;
    let ended = false;
    return () => {
      if (!ended) {
        ended = true;
        this.#endHold(entry);
      }
    };
  }

  drop(stored: StoredState): void {
    if (this.#entries.delete(stored)) {
      this.transfers.serveWaiting();
    }
  }

  /** Drops all states of these kinds. */
  clear(...kinds: StateKind[]): void {
    for (const kind of kinds) {
      for (const stored of this.values(kind)) {
        this.#entries.delete(stored);
      }
    }
    this.transfers.serveWaiting();
  }

  /** Pinned states are never displaced. Their bytes count: if they fill the budget, no other state is kept. */
  setPinned(key: string, pinned: boolean): void {
    if (pinned) {
      this.#pinned.add(key);
    } else if (this.#pinned.delete(key)) {
      this.transfers.serveWaiting();
    }
  }

  /** Pins a state for some time. @param ms 0 ends an earlier pin of this kind */
  pinFor(key: string, ms: number): void {
    if (ms > 0) {
      this.#pinnedUntil.set(key, this.#now() + ms);
    } else if (this.#pinnedUntil.delete(key)) {
      this.transfers.serveWaiting();
    }
  }

  isPinned(key: string): boolean {
    return this.#pinned.has(key) || (this.#pinnedUntil.get(key) ?? 0) > this.#now();
  }

  status(): StateStoreStatus {
    const byKind = {
      request: { count: 0, bytes: 0 },
      conversation: { count: 0, bytes: 0 },
      template: { count: 0, bytes: 0 },
    };
    for (const { stored, bytes } of this.#entries.values()) {
      byKind[stored.kind].count++;
      byKind[stored.kind].bytes += bytes;
    }
    const transferBytes = this.transfers.bytes + this.#droppedBytes;
    const { size: count, calculatedSize: bytes } = this.#entries;
    return { bytes, maxBytes: this.maxBytes, count, transferBytes, byKind };
  }

  /** Drops all states and refuses new ones. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#entries.clear();
    this.transfers.close();
  }

  /** Drops states until `bytes` fit. If they cannot fit, drops nothing. */
  #makeSpace(bytes: number, owner: StateOwner): boolean {
    const used = this.#entries.calculatedSize + this.#droppedBytes + this.transfers.reservedBytes;
    let missing = used + bytes - this.maxBytes;
    const evicted: StoredState[] = [];
    for (const { stored, bytes: freed } of missing > 0 ? this.#displaceable(this.#rankOf(owner)) : []) {
      evicted.push(stored);
      missing -= freed;
      if (missing <= 0) {
        break;
      }
    }
    if (missing > 0) {
      return false;
    }
    for (const stored of evicted) {
      this.#entries.delete(stored);
      stored.onEvicted?.();
    }
    return true;
  }

  /** The entries that a state of this rank may displace. The first entry leaves first. */
  #displaceable(rank: number): Entry[] {
    return [...this.#entries.rvalues()] // the least recently used first: a stable sort keeps this order
      .filter((entry) => entry !== undefined)
      .map((entry) => ({ entry, rank: this.#rankOf(entry.stored, entry.usedAt) }))
      .filter((each) => each.rank <= rank && each.rank !== RANK.pinned && each.entry.holds === 0)
      .sort((a, b) => a.rank - b.rank)
      .map(({ entry }) => entry);
  }

  #rankOf({ kind, key, inProgress }: StateOwner, usedAt = this.#now()): number {
    if (kind === 'request') {
      return RANK.request; // even if it was just used: it must not displace a template or an active conversation
    }
    if (key !== undefined && this.isPinned(key)) {
      return RANK.pinned;
    }
    if (inProgress?.()) {
      return RANK.inProgress;
    }
    return this.#now() - usedAt < RECENT_MS ? RANK.recent : RANK[kind];
  }

  #onRemoved({ stored, bytes, holds }: Entry): void {
    stored.isDropped = true;
    if (stored.key !== undefined) {
      this.#byKey.delete(stored.key);
    }
    if (holds === 0) {
      stored.state.close();
    } else {
      this.#droppedBytes += bytes;
    }
  }

  #endHold(entry: Entry): void {
    entry.holds--;
    if (entry.holds === 0 && !this.#entries.has(entry.stored)) {
      this.#droppedBytes -= entry.bytes;
      entry.stored.state.close();
    }
    this.transfers.serveWaiting();
  }
}
