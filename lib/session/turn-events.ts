import { randomUUID } from 'node:crypto';
import { publish } from '../diagnostics/events.js';
import type { FinishPart } from '../generate/stream-parts.js';

/** Publishes the events of a turn's start and end. The end is published once. */
export class TurnEvents {
  readonly #turn: { turnId: string; sessionId: string; model: string };
  /** Undefined before the start, and after the end was published. */
  #begin: number | undefined;
  #finish: FinishPart | undefined;

  constructor(turn: { turnId: string; sessionId: string; model: string }) {
    this.#turn = turn;
  }

  begin(): void {
    this.#begin = performance.now();
    publish('turn', { event: 'start', ...this.#turn });
  }

  finished(part: FinishPart): void {
    this.#finish = part;
  }

  failed(error: unknown): void {
    this.#end({ error });
  }

  /**
   * Publishes the end of a turn that finished, or whose stream the program left. After {@link failed} this does nothing. The
   * function must not refer to the session: an observer may keep the error, whose stack refers to this function.
   */
  readonly end = (): void => {
    const { finishReason, usage } = this.#finish ?? {};
    this.#end(
      finishReason === undefined || usage === undefined
        ? { error: new Error('The stream was left before its end') }
        : { finishReason, usage },
    );
  };

  #end(how: Partial<Pick<FinishPart, 'finishReason' | 'usage'>> & { error?: unknown }): void {
    if (this.#begin !== undefined) {
      const { turnId, sessionId } = this.#turn;
      publish('turn', { event: 'end', turnId, sessionId, ms: performance.now() - this.#begin, ...how });
      this.#begin = undefined;
    }
  }
}

export function newTurnId(): string {
  return randomUUID();
}
