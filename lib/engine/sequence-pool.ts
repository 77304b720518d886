import { throwIfAborted, waitInQueue } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { isOvertakenBy } from './overtaking.js';
import type { Sequence } from './sequence.js';

export interface SequencePoolOptions {
  /** Called when a sequence became idle or was released. */
  onIdle?: (() => void) | undefined;
  /**
   * Called before an eviction, while the sequence still holds its tokens. `isTakenOver` tells whether the tokens move to
   * another sequence. If not, they are removed.
   */
  onEvict?: ((sequence: Sequence, isTakenOver: boolean) => void) | undefined;
  /** Maximum number of callers that wait for an id. @default no limit */
  maxQueueSize?: number | undefined;
  /** The age of the first lease. @default 0 */
  firstAge?: number | undefined;
  /** A clock in ms, for {@link isOvertakenBy}. @default performance.now */
  now?: (() => number) | undefined;
}

interface Waiter {
  sequence: Sequence;
  resolve(): void;
  reject(error: Error): void;
}

/**
 * Leases the ids of a context to sequences. If no id is free, the least recently used idle sequence is evicted. If all
 * sequences are busy, callers wait in the order of their calls, except that one may overtake another: see
 * {@link isOvertakenBy}.
 */
export class SequencePool {
  readonly #free: number[];
  /** Least recently used first. */
  readonly #leased = new Set<Sequence>();
  readonly #waiting: Waiter[] = [];
  /** Called when a sequence became idle or was released. */
  readonly #onIdle = new Set<() => void>();
  readonly #options: SequencePoolOptions;
  readonly #now: () => number;
  #nextAge: number;
  #closed = false;

  constructor(ids: readonly number[], options: SequencePoolOptions = {}) {
    this.#free = [...ids].reverse();
    this.#options = options;
    this.#nextAge = options.firstAge ?? 0;
    this.#now = options.now ?? (() => performance.now());
  }

  get size(): number {
    return this.#free.length + this.#leased.size;
  }

  /** The leased sequences, beginning with the least recently used. */
  get leased(): ReadonlySet<Sequence> {
    return this.#leased;
  }

  /** Whether an id is free, so that a lease evicts no sequence. */
  get hasFreeId(): boolean {
    return this.#free.length > 0;
  }

  /** The number of callers that wait for an id. */
  get queueLength(): number {
    return this.#waiting.length;
  }

  /** The number of leased sequences in use. */
  get busyCount(): number {
    let count = 0;
    for (const { busy } of this.#leased) {
      count += busy ? 1 : 0;
    }
    return count;
  }

  /**
   * Order of arrival of the sequence's current work: smaller is older. Undefined if the sequence has no id of this
   * pool.
   */
  ageOf(sequence: Sequence): number | undefined {
    if (!this.#leased.has(sequence)) {
      return undefined;
    }
    sequence.age ??= this.#nextAge++;
    return sequence.age;
  }

  /**
   * Leases an id to an empty sequence. Waits if no id is available.
   *
   * @param inProgress whether the caller's turn has begun and lost its id. Such a turn may wait even if the queue is
   *   full.
   *   @default false
   * @throws HeadstartError `ABORTED` while waiting, `QUEUE_FULL`, `CLOSED`.
   */
  async lease(sequence: Sequence, signal?: AbortSignal, inProgress = false): Promise<void> {
    throwIfAborted(signal);
    if (!this.tryLease(sequence)) {
      if (!inProgress) {
        this.#requireQueueSpace();
      }
      await this.#wait(sequence, signal);
    }
  }

  /**
   * Leases an id only if an id is free or an idle sequence can be evicted.
   *
   * @param age order of arrival of the caller's work. @default the newest
   * @returns whether the sequence has an id now
   */
  tryLease(sequence: Sequence, age?: number): boolean {
    this.#requireOpen();
    if (this.#free.length === 0) {
      this.evictIdle();
    }
    const id = this.#free.pop();
    if (id === undefined) {
      return false;
    }
    this.#assign(sequence, id, age ?? this.#nextAge++);
    return true;
  }

  /**
   * Evicts an idle sequence, and gives its id and its tokens to an empty sequence without an id. Nothing is copied or
   * removed in the KV cache.
   *
   * @param keepsContents as {@link evictIdle}
   */
  takeOver(idle: Sequence, sequence: Sequence, keepsContents = true): void {
    this.#requireOpen();
    this.#leased.delete(idle);
    if (keepsContents) {
      this.#options.onEvict?.(idle, true);
    }
    idle.moveTo(sequence);
    idle.notifyEvicted();
    sequence.age = this.#nextAge++;
    this.#leased.add(sequence);
  }

  /** Resolves when no sequence is in use by a turn. */
  async untilTurnsEnd(): Promise<void> {
    while ([...this.#leased].some(({ busy, inProgress }) => busy && inProgress)) {
      await new Promise<void>((resolve) => this.#onIdle.add(resolve));
    }
  }

  /** Marks a sequence as just used. Its next work gets a new age. */
  touch(sequence: Sequence): void {
    if (this.#leased.delete(sequence)) {
      sequence.age = undefined;
      this.#leased.add(sequence);
    }
  }

  /** Marks a sequence as idle and just used, so that it can be evicted. */
  setIdle(sequence: Sequence): void {
    sequence.busy = false;
    sequence.idleSince = performance.now();
    this.touch(sequence);
    if (this.#waiting.length > 0) {
      this.evictIdle();
    }
    this.#notifyIdle();
  }

  /** Empties a sequence and ends its lease. The first waiting caller gets its id. */
  release(sequence: Sequence): void {
    if (this.#leased.delete(sequence)) {
      this.#assignNext(sequence.leave());
      this.#notifyIdle();
    }
  }

  #notifyIdle(): void {
    this.#options.onIdle?.();
    for (const resolve of this.#onIdle) {
      this.#onIdle.delete(resolve);
      resolve();
    }
  }

  /**
   * Evicts one idle sequence. {@link evictionRank} gives the order. Of sequences with the same rank, the least recently
   * used one is evicted first. Returns false if no sequence can be evicted.
   *
   * @param accept restricts which sequences may be evicted. @default all
   * @param keepsContents whether `onEvict` is called, so that the contents can be kept. @default true
   */
  evictIdle(accept: (sequence: Sequence) => boolean = () => true, keepsContents = true): boolean {
    const evicted = this.nextEvicted(accept);
    if (evicted === undefined) {
      return false;
    }
    this.#leased.delete(evicted);
    if (keepsContents) {
      this.#options.onEvict?.(evicted, false);
    }
    const id = evicted.leave();
    evicted.notifyEvicted();
    this.#assignNext(id);
    return true;
  }

  /** The sequence that {@link evictIdle} would evict now. */
  nextEvicted(accept: (sequence: Sequence) => boolean = () => true): Sequence | undefined {
    let next: Sequence | undefined;
    for (const sequence of this.#leased) {
      const isIdle = !sequence.busy && accept(sequence);
      if (isIdle && (next === undefined || evictionRank(sequence) < evictionRank(next))) {
        next = sequence;
      }
    }
    return next;
  }

  close(): void {
    this.#closed = true;
    for (const waiter of this.#waiting.splice(0)) {
      waiter.reject(closedError());
    }
  }

  #assign(sequence: Sequence, id: number, age: number | undefined): void {
    sequence.assign(id);
    sequence.age = age;
    this.#leased.add(sequence);
  }

  #assignNext(id: number): void {
    const next = this.#takeNext();
    if (next === undefined) {
      this.#free.push(id);
    } else {
      this.#assign(next.sequence, id, next.sequence.age);
      next.resolve();
    }
  }

  /** Takes the first waiting caller from the queue, or a caller that overtakes the first one. */
  #takeNext(): Waiter | undefined {
    const [first] = this.#waiting;
    const time = this.#now();
    const isNext = ({ sequence }: Waiter) => first !== undefined && isOvertakenBy(first.sequence, sequence, time);
    return this.#waiting.splice(Math.max(0, this.#waiting.findIndex(isNext)), 1)[0];
  }

  #wait(sequence: Sequence, signal: AbortSignal | undefined): Promise<void> {
    sequence.age = this.#nextAge++;
    return waitInQueue<void>(signal, (resolve, reject) => {
      const waiter: Waiter = { sequence, resolve, reject };
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

/**
 * The order of eviction, lowest first: one-off requests that have ended, one-off requests that wait for tools or a
 * reader, idle conversations, conversations that wait for tools or a reader, pinned sequences. So a conversation is
 * evicted only if no sequence of a one-off request is idle.
 */
function evictionRank({ kind, inProgress, pinned }: Sequence): number {
  return (pinned ? 4 : 0) + (kind === 'request' ? 0 : 2) + (inProgress ? 1 : 0);
}
