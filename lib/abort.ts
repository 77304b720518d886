// Helpers for abort signals: checks, waits that end on an abort, and combined signals.
import { HeadstartError } from './errors.js';

/** @throws HeadstartError `INVALID_ARGUMENT` if the signal is no AbortSignal, `ABORTED` if it has fired. */
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

/** @param sequences see {@link HeadstartError.sequences} */
export function abortedError(signal: AbortSignal | undefined, sequences?: readonly number[]): HeadstartError {
  return new HeadstartError('ABORTED', 'The operation was aborted', { cause: signal?.reason, sequences });
}

/**
 * Calls `listener` when the signal fires, or at once if the signal has already fired.
 *
 * @returns a function that removes the listener
 */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal?.aborted) {
    listener();
  } else {
    signal?.addEventListener('abort', listener, { once: true });
  }
  return () => signal?.removeEventListener('abort', listener);
}

/**
 * Waits for work that has several waiters. An abort ends this wait, but the work continues.
 *
 * @throws HeadstartError `ABORTED`, or the error of the work.
 */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) {
    return work;
  }
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = onAbort(signal, () => reject(abortedError(signal)));
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stop();
  }
}

/**
 * Waits in a queue. An abort ends the wait.
 *
 * @param enter puts the request in the queue and returns a function that removes it. The queue ends the wait with
 *   `resolve` or `reject`.
 * @throws HeadstartError `ABORTED`, or the error that the queue passed to `reject`.
 */
export async function waitInQueue<T>(
  signal: AbortSignal | undefined,
  enter: (resolve: (value: T) => void, reject: (error: unknown) => void) => () => void,
): Promise<T> {
  throwIfAborted(signal);
  return new Promise((resolve, reject) => {
    let settled = false;
    let stop = () => {};
    const settle = (action: () => void) => {
      settled = true;
      stop(); // from now on an abort must not call `leave`, because the request has left the queue
      action();
    };
    const leave = enter(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    );
    if (!settled) {
      stop = onAbort(signal, () => {
        leave();
        reject(abortedError(signal));
      });
    }
  });
}

/**
 * Keeps the sources of each combined signal alive. Node.js refers to the sources weakly, and a timeout signal that was
 * garbage-collected never fires.
 */
const sources = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/**
 * Returns a new signal that fires when one of `signals` fires. Listeners on the new signal do not count as listeners of
 * `signals`: Node.js warns about a signal with more than ten listeners.
 */
export function combinedSignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const present = signals.filter((signal) => signal !== undefined);
  const combined = AbortSignal.any(present);
  sources.set(combined, present);
  return combined;
}

/** Returns a signal that fires when `signal` or `other` fires. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? signal : combinedSignal(signal, other);
}
