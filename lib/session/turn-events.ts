import { randomUUID } from 'node:crypto';
import { publish } from '../diagnostics/events.js';
import type { FinishPart } from '../generate/stream-parts.js';

/** Tells observers when a turn begins and how it ends. */
export class TurnEvents {
  readonly #turn: { turnId: string; sessionId: string; model: string };
  /** Undefined before it begins, and once its end was told. */
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
   * However it came: finished, or left before that. What failed has been told. It leads to no session: an observer may keep the
   * error, whose stack leads to this function and what it knows.
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
