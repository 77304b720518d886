// Waits for conditions and events, so that tests need no clock.
import { subscribeDiagnostics } from 'llama-headstart';
import { onTestFinished } from 'vitest';

/** Waits for `count` turns of the event loop. */
export async function loopTurns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    await new Promise(setImmediate);
  }
}

/** Calls `condition` in each turn of the event loop, and resolves when `condition` returns true. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise(setImmediate);
  }
}

/** Calls `action` at the end of the `count`th decode from now on. If `count` is 0, calls `action` at once. */
export function afterDecodes(count: number, action: () => void): void {
  if (count === 0) {
    action();
    return;
  }
  let left = count;
  const unsubscribe = subscribeDiagnostics('decode', () => {
    left--;
    if (left === 0) {
      unsubscribe();
      action();
    }
  });
  onTestFinished(unsubscribe);
}

/** Records the largest number of sequences in one decode, from now on. */
export function watchBatches(): { readonly maxSequences: number } {
  const batches = { maxSequences: 0 };
  onTestFinished(
    subscribeDiagnostics('decode', ({ sequences }) => {
      batches.maxSequences = Math.max(batches.maxSequences, sequences);
    }),
  );
  return batches;
}

/** Returns a promise and the function that resolves it. */
export function deferred<T = void>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((resolvePromise) => {
    resolve = resolvePromise;
  });
  return { promise, resolve };
}
