import type { Engine } from './engine.js';
import type { Sequence } from './sequence.js';
import type { ContentsCopy } from './sequence-states.js';

/**
 * A state is kept if decoding its tokens again would take more than this many times as long as copying the state out
 * and in.
 */
const MIN_SPEEDUP = 2;

/** Keeps the contents of a sequence that is about to be evicted, if restoring them later is worthwhile. */
export function swapOut(engine: Engine, sequence: Sequence, isTakenOver: boolean): void {
  const { reproducible, saver, states } = engine;
  const save = saver?.onEvict(sequence, isTakenOver);
  const isOneOff = sequence.isAbandoned && sequence.kind === 'request';
  if (isOneOff) {
    states.dropPartial(sequence); // the sequence never gets its cells back
  }
  if (save !== undefined) {
    swapOutAndSave(engine, sequence, !isOneOff, save);
    return;
  }
  if (sequence.length <= sequence.templateLength || isOneOff) {
    return; // an earlier state may still be swapped out
  }
  if (reproducible !== undefined) {
    reproducible.swapOut(sequence);
  } else if (isWorthSaving(engine, sequence)) {
    states.swapOut(sequence, true);
  } else {
    states.dropSwapped(sequence);
    states.dropPartial(sequence);
  }
}

/** @param keeps whether to keep the contents in memory too */
function swapOutAndSave(
  { states }: Engine,
  sequence: Sequence,
  keeps: boolean,
  save: (captured: Promise<ContentsCopy | undefined>) => void,
): void {
  const capturing = states.captureCopy(sequence, keeps).catch(() => undefined);
  if (keeps) {
    states.swapOut(
      sequence,
      true,
      capturing.then((copy) => copy?.stored),
    );
  }
  save(capturing);
}

function isWorthSaving({ context, prefillMsPerToken }: Engine, { length, templateLength }: Sequence): boolean {
  const replayMs = (length - templateLength) * prefillMsPerToken;
  const { captures, captureMs } = context.counters();
  // The estimate assumes that this state is about as large as earlier states.
  const copyMs = captures === 0 ? 1 : (2 * captureMs) / captures;
  return replayMs > MIN_SPEEDUP * copyMs;
}
