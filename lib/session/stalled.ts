import type { ConversationSequence } from './sequence.js';

/** A stream that nobody reads from for so long lets others have its sequence. */
const STALLED_MS = 1000;

/** Yields a part of a stream. Who does not read on may be waiting, in this very loop, for a sequence: then this one can be had. */
export async function* offer<T>(sequence: ConversationSequence, part: T): AsyncGenerator<T, void, undefined> {
  const stalled = setTimeout(() => sequence.setBusy(false), STALLED_MS);
  try {
    yield part;
  } finally {
    clearTimeout(stalled);
  }
  sequence.setBusy(true);
}
