import { throwIfAborted, waitInQueue } from '../abort.js';
import { HeadstartError } from '../errors.js';

/** The owner of a leased sequence. It can lose the sequence while it is idle. */
export interface SequenceHolder {
  /** Whether the holder uses its sequence right now. */
  readonly busy: boolean;
  /** Whether the holder is evicted only after all holders that are not pinned. @default false */
  readonly pinned?: boolean;
  /**
   * The tokens of the sequence. The pool calls it before an eviction, so that the state can be kept. If absent, no
   * state is kept.
   */
  held?(): {
    /** All tokens, by position. */
    tokens: Int32Array;
    /** How many tokens at the start belong to the template. */
    templateTokens: number;
  };
  /**
   * Called when the pool evicts the holder, which must not use the sequence any more. The pool empties the sequence.
   * Errors thrown here or in `held` become a process warning (`HOLDER_THREW`).
   */
  onEvicted(): void;
}

export interface SequencePoolOptions {
  /** Called when a holder became idle or released its sequence. */
  onIdle?: (() => void) | undefined;
  /** Called before an eviction. */
  onEvict?: ((sequence: number, holder: SequenceHolder) => void) | undefined;
  /** Maximum callers that wait for a sequence. @default no limit */
  maxQueueSize?: number | undefined;
  /** The age of the first lease. @default 0 */
  firstAge?: number | undefined;
}

/** A leased sequence. */
interface Hold {
  readonly holder: SequenceHolder;
  /** Order of arrival of the holder's current work; assigned when it is first read. */
  age: number | undefined;
}

interface Waiter extends Hold {
  resolve(sequence: number): void;
  reject(error: Error): void;
}

/**
 * Leases the sequences of a context. If no sequence is free, the least recently used idle holder is evicted. If all
 * holders are busy, callers wait in the order of their calls.
 */
export class SequencePool {
  readonly #free: number[];
  readonly #empty: (sequence: number) => Promise<unknown>;
  /** Least recently used first. */
  readonly #held = new Map<number, Hold>();
  readonly #waiting: Waiter[] = [];
  readonly #options: SequencePoolOptions;
  #nextAge: number;
  #closed = false;

  /** @param empty removes all tokens of a sequence */
  constructor(
    sequences: readonly number[],
    empty: (sequence: number) => Promise<unknown>,
    options: SequencePoolOptions = {},
  ) {
    this.#free = [...sequences].reverse();
    this.#empty = empty;
    this.#options = options;
    this.#nextAge = options.firstAge ?? 0;
  }

  get size(): number {
    return this.#free.length + this.#held.size;
  }

  /** The number of leased sequences. */
  get heldCount(): number {
    return this.#held.size;
  }

  /** The number of callers that wait for a sequence. */
  get queueLength(): number {
    return this.#waiting.length;
  }

  /** The number of holders that use their sequence right now. */
  get busyCount(): number {
    return [...this.#held.values()].filter(({ holder }) => holder.busy).length;
  }

  /** Whether this sequence is leased. */
  holds(sequence: number): boolean {
    return this.#held.has(sequence);
  }

  /** Whether this sequence is leased and in use. */
  isBusy(sequence: number): boolean {
    return this.#held.get(sequence)?.holder.busy ?? false;
  }

  /** Order of arrival of the holder's current work: smaller is older. */
  ageOf(sequence: number): number | undefined {
    const hold = this.#held.get(sequence);
    if (hold !== undefined) {
      hold.age ??= this.#nextAge++;
    }
    return hold?.age;
  }

  /**
   * Leases an empty sequence. Waits if no sequence is available.
   *
   * @param inProgress whether the caller's turn has begun and lost its sequence. Such a turn may wait even if the queue
   *   is full.
   *   @default false
   * @throws HeadstartError `ABORTED` while waiting, `QUEUE_FULL`, `CLOSED`.
   */
  async lease(holder: SequenceHolder, signal?: AbortSignal, inProgress = false): Promise<number> {
    throwIfAborted(signal);
    const sequence = this.tryLease(holder);
    if (sequence === undefined) {
      if (!inProgress) {
        this.#requireQueueSpace();
      }
      return this.#wait(holder, signal);
    }
    return sequence;
  }

  /**
   * Leases an empty sequence only if one is free or an idle holder can be evicted.
   *
   * @param age order of arrival of the caller's work. @default the newest
   */
  tryLease(holder: SequenceHolder, age?: number): number | undefined {
    this.#requireOpen();
    if (this.#free.length === 0) {
      this.evictIdle();
    }
    const sequence = this.#free.pop();
    if (sequence !== undefined) {
      this.#held.set(sequence, { holder, age: age ?? this.#nextAge++ });
    }
    return sequence;
  }

  /** Marks a sequence as just used. Its holder's next work gets a new age. */
  touch(sequence: number): void {
    const hold = this.#held.get(sequence);
    if (hold !== undefined) {
      hold.age = undefined;
      this.#held.delete(sequence);
      this.#held.set(sequence, hold);
    }
  }

  /** Ends a lease and empties the sequence. The first waiting caller gets it. */
  release(sequence: number): void {
    if (this.#held.delete(sequence)) {
      this.#assignNext(sequence);
      this.#options.onIdle?.();
    }
  }

  /**
   * Evicts the least recently used idle holder and empties its sequence. Returns false if no holder can be evicted.
   *
   * @param accept restricts which holders may be evicted. @default all
   */
  evictIdle(accept: (sequence: number, holder: SequenceHolder) => boolean = () => true): boolean {
    for (const [sequence, { holder }] of this.#held) {
      if (!holder.busy && accept(sequence, holder)) {
        this.#held.delete(sequence);
        this.#notify(sequence, holder);
        this.#assignNext(sequence);
        return true;
      }
    }
    return false;
  }

  /**
   * Notifies the holder of its eviction. Errors of the holder do not stop the eviction, because other callers wait for
   * the sequence.
   */
  #notify(sequence: number, holder: SequenceHolder): void {
    try {
      this.#options.onEvict?.(sequence, holder);
      holder.onEvicted();
    } catch (error) {
      process.emitWarning(`The holder of an evicted sequence threw: ${error}`, { code: 'HOLDER_THREW' });
    }
  }

  /** Call this when a holder became idle, because another caller may be waiting for a sequence. */
  idle(): void {
    if (this.#waiting.length > 0) {
      this.evictIdle();
    }
    this.#options.onIdle?.();
  }

  close(): void {
    this.#closed = true;
    for (const waiter of this.#waiting.splice(0)) {
      waiter.reject(closedError());
    }
  }

  #assignNext(sequence: number): void {
    // Calls to a context run in order, so the sequence is empty before the next holder uses it.
    this.#empty(sequence).catch(() => undefined);
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#free.push(sequence);
    } else {
      this.#held.set(sequence, { holder: next.holder, age: next.age });
      next.resolve(sequence);
    }
  }

  #wait(holder: SequenceHolder, signal: AbortSignal | undefined): Promise<number> {
    return waitInQueue(signal, (resolve, reject) => {
      const waiter: Waiter = { holder, age: this.#nextAge++, resolve, reject };
      this.#waiting.push(waiter);
      return () => this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
    });
  }

  #requireQueueSpace(): void {
    const { maxQueueSize } = this.#options;
    if (maxQueueSize !== undefined && this.#waiting.length >= maxQueueSize) {
      throw new HeadstartError(
        'QUEUE_FULL',
        `Too many sessions wait for a sequence (\`maxQueueSize\` is ${maxQueueSize}): try again later, or raise \`nSeqMax\``,
      );
    }
  }

  #requireOpen(): void {
    if (this.#closed) {
      throw closedError();
    }
  }
}

function closedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected an open agent, but it was closed');
}
