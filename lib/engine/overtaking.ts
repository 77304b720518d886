import type { Sequence } from './sequence.js';

/**
 * `main`: a request with tools. `side`: a request without tools. A `main` request overtakes earlier `side` requests of
 * its key group that have not begun, because agents often send a small request, for example for a title, just before
 * the main request.
 */
export type Precedence = 'main' | 'side';

/** A request is overtaken only during this time after its arrival, ms. */
const MAX_WAIT_MS = 2000;

/** Whether a request that has not begun waits for another request that arrived later. */
export function isOvertakenBy(side: Sequence, main: Sequence, now: number): boolean {
  return (
    side.precedence === 'side' &&
    main.precedence === 'main' &&
    side.group === main.group &&
    now - side.arrivedAt < MAX_WAIT_MS
  );
}
