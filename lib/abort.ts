// Abort signals: checks, waits that an abort ends, and signals that combine others.
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
 * Calls `listener` when the signal fires, or at once if it has fired.
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
 * Waits for work that others may wait for too. An abort ends this wait and not the work.
 *
 * @throws HeadstartError `ABORTED`, and the errors of the work.
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
 * @param enter enters the queue with the functions that end the wait, and returns a function that leaves the queue
 * @throws HeadstartError `ABORTED`, and the error that ends the wait.
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
      stop(); // at once: a request that left the queue must not leave it again
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

/** The signals that each combined signal depends on. Node.js refers to them weakly, and a collected time limit never fires. */
const sources = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/**
 * A new signal that fires when one of these does. A new signal has no listeners yet; Node.js warns if a signal has more than ten.
 */
export function combinedSignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const present = signals.filter((signal) => signal !== undefined);
  const combined = AbortSignal.any(present);
  sources.set(combined, present);
  return combined;
}

/** Fires when one of these does. */
export function eitherSignal(signal: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other === undefined ? signal : combinedSignal(signal, other);
}
