import { randomUUID } from 'node:crypto';
import { publish } from '../diagnostics.js';
import { Life } from './forgotten.js';
import type { StreamPart } from './parts.js';

/** Tells observers when a turn begins and how it ends; its parts go through unchanged. */
export async function* observeTurn(
  turn: { turnId: string; sessionId: string; model: string },
  parts: AsyncGenerator<StreamPart, void, undefined>,
): AsyncGenerator<StreamPart, void, undefined> {
  const begin = performance.now();
  const { turnId, sessionId } = turn;
  publish('turn', { event: 'start', ...turn });
  let end: object | undefined;
  const tell = (how: object = { error: new Error('The stream was left before its end') }) =>
    publish('turn', { event: 'end', turnId, sessionId, ms: performance.now() - begin, ...how });
  const life = new Life(tell);
  try {
    for await (const part of parts) {
      if (part.type === 'finish') {
        end = { finishReason: part.finishReason, usage: part.usage };
      }
      yield part;
    }
  } catch (error) {
    end = { error };
    throw error;
  } finally {
    life.end();
    tell(end);
  }
}

export function newTurnId(): string {
  return randomUUID();
}
