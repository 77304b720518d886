import { throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';

/** Who holds a sequence and can be asked to give it back while it does not generate. */
export interface SequenceHolder {
  /** Whether the sequence is in use right now. */
  readonly busy: boolean;
  /** Whether it should be among the last to lose its sequence. @default false */
  readonly pinned?: boolean;
  /** What the sequence holds: asked for before it is taken away, so that it can be saved. Where absent, nothing is. */
  held?(): {
    /** All of them, by position. */
    tokens: Int32Array;
    /** How many of them, from the first, are the template's. */
    templateTokens: number;
  };
  /**
   * The pool takes the sequence away: forget it. The pool empties it before the next holder gets it. What this throws, or `held`,
   * becomes a process warning (`HOLDER_THREW`).
   */
  onEvicted(): void;
}

export interface SequencePoolOptions {
  /** Called when a holder became idle, or gave its sequence back. */
  onIdle?: (() => void) | undefined;
  /** Called before a sequence is taken from its holder. */
  onEvict?: ((sequence: number, holder: SequenceHolder) => void) | undefined;
  /** Most callers that wait for a sequence. @default any number */
  maxQueueSize?: number | undefined;
  /** The age of the first beginning. @default 0 */
  firstAge?: number | undefined;
}

/** Who has a sequence. */
interface Hold {
  readonly holder: SequenceHolder;
  /** When it began what it does now, counted in beginnings; undefined until it is asked for. */
  age: number | undefined;
}

interface Waiter extends Hold {
  resolve(sequence: number): void;
  reject(error: Error): void;
}

/**
 * Hands out the sequence ids of a context. Where none is free, the least recently used idle holder loses its own; where
 * all are busy, callers wait in order.
 */
export class SequencePool {
  readonly #free: number[];
  readonly #empty: (sequence: number) => Promise<unknown>;
  /** Least recently used first. */
  readonly #held = new Map<number, Hold>();
  readonly #waiting: Waiter[] = [];
  readonly #options: SequencePoolOptions;
  #beginnings: number;
  #closed = false;

  /** @param empty removes a sequence's tokens */
  constructor(
    sequences: readonly number[],
    empty: (sequence: number) => Promise<unknown>,
    options: SequencePoolOptions = {},
  ) {
    this.#free = [...sequences].reverse();
    this.#empty = empty;
    this.#options = options;
    this.#beginnings = options.firstAge ?? 0;
  }

  get size(): number {
    return this.#free.length + this.#held.size;
  }

  /** Sequences that hold somebody's tokens. */
  get heldCount(): number {
    return this.#held.size;
  }

  /** Callers that wait for a sequence. */
  get queueLength(): number {
    return this.#waiting.length;
  }

  /** Holders that use their sequence right now. */
  get busyCount(): number {
    return [...this.#held.values()].filter(({ holder }) => holder.busy).length;
  }

  /** Whether somebody holds this sequence. */
  holds(sequence: number): boolean {
    return this.#held.has(sequence);
  }

  /** Whether somebody holds this sequence and uses it. */
  isBusy(sequence: number): boolean {
    return this.#held.get(sequence)?.holder.busy ?? false;
  }

  /** When the sequence's holder began what it does now: who began earlier has a smaller one. */
  ageOf(sequence: number): number | undefined {
    const hold = this.#held.get(sequence);
    if (hold !== undefined) {
      hold.age ??= this.#beginnings++;
    }
    return hold?.age;
  }

  /**
   * An empty sequence.
   *
   * @param isUnderWay of who had begun, and lent its sequence meanwhile: however many wait, it is not refused. @default false
   * @throws HeadstartError `ABORTED` while waiting, `QUEUE_FULL`, `CLOSED`.
   */
  async lease(holder: SequenceHolder, signal?: AbortSignal, isUnderWay = false): Promise<number> {
    throwIfAborted(signal);
    const sequence = this.tryLease(holder);
    if (sequence === undefined) {
      if (!isUnderWay) {
        this.#requireQueueSpace();
      }
      return this.#wait(holder, signal);
    }
    return sequence;
  }

  /**
   * An empty sequence where one is to be had at once: free, or an idle holder's.
   *
   * @param age of who it is for. @default that of a new beginning
   */
  tryLease(holder: SequenceHolder, age?: number): number | undefined {
    this.#requireOpen();
    if (this.#free.length === 0) {
      this.evictIdle();
    }
    const sequence = this.#free.pop();
    if (sequence !== undefined) {
      this.#held.set(sequence, { holder, age: age ?? this.#beginnings++ });
    }
    return sequence;
  }

  /** Marks a sequence as just used: what its holder does next is a new beginning. */
  touch(sequence: number): void {
    const hold = this.#held.get(sequence);
    if (hold !== undefined) {
      hold.age = undefined;
      this.#held.delete(sequence);
      this.#held.set(sequence, hold);
    }
  }

  /** Takes a sequence back and empties it; the first who waits gets it. */
  release(sequence: number): void {
    if (this.#held.delete(sequence)) {
      this.#handOn(sequence);
      this.#options.onIdle?.();
    }
  }

  /**
   * Takes the least recently used idle sequence from its holder and empties it; false if there is none.
   *
   * @param accept which may be taken. @default any
   */
  evictIdle(accept: (sequence: number, holder: SequenceHolder) => boolean = () => true): boolean {
    for (const [sequence, { holder }] of this.#held) {
      if (!holder.busy && accept(sequence, holder)) {
        this.#held.delete(sequence);
        this.#tell(sequence, holder);
        this.#handOn(sequence);
        return true;
      }
    }
    return false;
  }

  /** What a holder throws is no reason to stop: others are waiting. */
  #tell(sequence: number, holder: SequenceHolder): void {
    try {
      this.#options.onEvict?.(sequence, holder);
      holder.onEvicted();
    } catch (error) {
      process.emitWarning(`The holder of an evicted sequence threw: ${error}`, { code: 'HOLDER_THREW' });
    }
  }

  /** Call when a holder stopped being busy: somebody may wait for its sequence. */
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

  #handOn(sequence: number): void {
    // Calls to a context run in order: it is empty before whatever the next holder asks for.
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
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
        reject(new HeadstartError('ABORTED', 'Waiting for a free sequence was aborted', { cause: signal?.reason }));
      };
      const waiter: Waiter = {
        holder,
        age: this.#beginnings++,
        resolve: (sequence) => {
          signal?.removeEventListener('abort', leave);
          resolve(sequence);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', leave);
          reject(error);
        },
      };
      signal?.addEventListener('abort', leave, { once: true });
      this.#waiting.push(waiter);
    });
  }

  #requireQueueSpace(): void {
    const { maxQueueSize } = this.#options;
    if (maxQueueSize !== undefined && this.#waiting.length >= maxQueueSize) {
      throw new HeadstartError(
        'QUEUE_FULL',
        `Expected fewer than ${maxQueueSize} sessions to wait for a sequence (\`maxQueueSize\`): try again later, or raise \`nSeqMax\``,
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
