import { HeadstartError } from './errors.js';

/** @throws HeadstartError `INVALID_ARGUMENT` for what is neither undefined nor an AbortSignal, `ABORTED` if it has fired. */
export function requireUnaborted(signal: AbortSignal | undefined): void {
  if (signal !== undefined && (typeof signal?.aborted !== 'boolean' || typeof signal.addEventListener !== 'function')) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected `signal` to be an AbortSignal');
  }
  throwIfAborted(signal);
}

/** @throws HeadstartError `ABORTED` if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw abortedError(signal);
  }
}

/** @param sequences as {@link HeadstartError.sequences} */
export function abortedError(signal: AbortSignal | undefined, sequences?: readonly number[]): HeadstartError {
  return new HeadstartError('ABORTED', 'The operation was aborted', { cause: signal?.reason, sequences });
}

/**
 * The result of work that others may wait for too: an abort ends the waiting alone.
 *
 * @throws HeadstartError `ABORTED`, and whatever the work throws.
 */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) {
    return work;
  }
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortedError(signal));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  if (signal.aborted) {
    onAbort();
  }
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** What signals were made of: Node.js refers to that weakly, and a time limit that was collected never fires. */
export const sources = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/**
 * Fires when one of them does. One of its own each time: many may listen at the same time, and a signal warns of its eleventh
 * listener.
 */
export function combinedSignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const given = signals.filter((signal) => signal !== undefined);
  const own = AbortSignal.any(given);
  sources.set(own, given);
  return own;
}

/** Fires when one of them does. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? signal : combinedSignal(signal, other);
}
