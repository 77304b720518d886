import { randomUUID } from 'node:crypto';
import { publish } from '../diagnostics/events.js';
import type { FinishReason } from '../generate/stream-parts.js';
import type { Usage } from '../usage.js';

/** Publishes the start and the end of a turn. */
export class TurnEvents {
  readonly #turn: { turnId: string; sessionId: string; model: string };
  #startedAt: number | undefined;

  constructor(turn: { turnId: string; sessionId: string; model: string }) {
    this.#turn = turn;
  }

  begin(): void {
    this.#startedAt = performance.now();
    publish('turn', { event: 'start', ...this.#turn });
  }

  /** Does nothing if the turn never began. */
  end(how: { finishReason: FinishReason; usage: Usage } | { error: unknown }): void {
    if (this.#startedAt !== undefined) {
      const { turnId, sessionId } = this.#turn;
      const ms = performance.now() - this.#startedAt;
      const outcome = 'error' in how ? { error: how.error } : { finishReason: how.finishReason, usage: how.usage };
      publish('turn', { event: 'end', turnId, sessionId, ms, ...outcome });
    }
  }
}

export function newTurnId(): string {
  return randomUUID();
}
