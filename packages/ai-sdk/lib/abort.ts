import { HeadstartError } from 'llama-headstart';

/**
 * The error that a call reports. An aborted call reports the reason of the abort, as `fetch` does, because the AI SDK
 * recognizes an abort by this reason.
 */
export function errorOf(error: unknown, signal: AbortSignal | undefined): unknown {
  return signal?.aborted && HeadstartError.isInstance(error, 'ABORTED') ? signal.reason : error;
}

/** Waits for work that has several waiters. An abort ends this wait, with the reason of the abort. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) {
    return work;
  }
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
