import type { RwLock } from '../engine/rw-lock.js';
import type { ConversationSequence } from './conversation-sequence.js';

/**
 * The way of a session, or a completion, through the gate. A turn is outside while its tools run, and while nobody reads on: it
 * computes nothing then, who waits to be alone need not wait for them, and what they ask the agent for does not wait for who waits
 * for this turn.
 */
export class TurnLock {
  readonly #gate: RwLock;
  readonly #sequence: ConversationSequence;
  #leave: (() => void) | undefined;
  /** How often somebody had been alone when the turn stepped out. */
  #seen: number | undefined;

  constructor(gate: RwLock, sequence: ConversationSequence) {
    this.#gate = gate;
    this.#sequence = sequence;
  }

  /** Whether a turn stepped out and did not come back. */
  get isOutside(): boolean {
    return this.#seen !== undefined;
  }

  /**
   * The sequence is busy from here on. While it waits it is not: whom it waits for may need the sequence, and takes away what was
   * computed with something else.
   *
   * @throws HeadstartError `ABORTED` while waiting.
   */
  async enter(signal: AbortSignal): Promise<void> {
    this.#leave = await this.#gate.read(signal);
    this.#dropStale();
    this.#sequence.setBusy(true);
  }

  /** Until {@link enter}: others may have the sequence, and change what all compute with. */
  stepOut(): void {
    this.#leave?.();
    this.#seen = this.#gate.writes;
    this.#sequence.makePreemptible();
  }

  leave(): void {
    this.#leave?.();
    this.#dropStale();
  }

  /** What was computed with something else is of no use, though the sequence was not idle when the others were. */
  #dropStale(): void {
    if (this.#seen !== undefined && this.#seen !== this.#gate.writes) {
      this.#sequence.release();
    }
    this.#seen = undefined;
  }
}
