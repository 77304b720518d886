import type { Sequence } from './sequence.js';

/**
 * The arrival of a request. A request with tools overtakes earlier requests of its key group that have no tools and
 * have not begun, because agents often send a small request, for example for a title, just before the main request.
 */
export interface Arrival {
  hasTools: boolean;
  /** When the request arrived, as `Engine.now`, in ms. */
  at: number;
}

/** A request is overtaken only during this time after its arrival, ms. */
const MAX_WAIT_MS = 2000;

/** Whether the request of a sequence waits for the request of `other`, which arrived later. */
export function isOvertakenBy({ arrival, hasBegun, group }: Sequence, other: Sequence, now: number): boolean {
  return (
    arrival?.hasTools === false &&
    !hasBegun &&
    now - arrival.at < MAX_WAIT_MS &&
    other.arrival?.hasTools === true &&
    other.group === group
  );
}
