// What `reproducible` asks of a model's kernels, found out when it is loaded.
import { HeadstartError } from '../../errors.js';
import type { Context } from '../../native/context.js';
import { KernelTest } from './kernel-test.js';

/**
 * What may share a batch. Pieces of prompts may not: in split streams llama.cpp cuts what is beside others into parts of one length,
 * and attention computes a single row otherwise than several, which quantised models round away most of the time, so that no
 * test would be sure to see it.
 */
export type BatchInvariance =
  /** Single tokens; a piece of a prompt is decoded alone. */
  | 'tokens'
  /** Nothing: sessions take turns, each decoding alone. */
  | 'none';

/**
 * Decodes a prompt and single tokens: twice, in another sequence, from a restored state, and beside others.
 *
 * @param context an empty one in split streams, with flash attention off; it is empty afterwards
 * @returns what may share a batch, so that logits are the same to the bit
 * @throws HeadstartError `NOT_REPRODUCIBLE` with the reason, where not even those are; `ABORTED`.
 */
export async function testReproducible(context: Context, signal?: AbortSignal): Promise<BatchInvariance> {
  const { maxSequences, fullSlidingWindow } = context.info;
  if (context.model.slidingWindow > 0 && fullSlidingWindow) {
    throw notReproducible('a sliding window whose cells are all kept (`fullSlidingWindow`) is restored without them');
  }
  const test = new KernelTest(context, signal);
  try {
    const expected = await test.alone(0);
    requireSame(expected, await test.alone(0), 'the same tokens, decoded twice, give different logits');
    const elsewhere = await test.alone(maxSequences - 1);
    requireSame(expected, elsewhere, 'the logits depend on which sequence the tokens are in');
    const restored = await test.restored().catch((cause: unknown) => {
      throw isRefused(cause) ? notReproducible('its state cannot be captured and restored', cause) : cause;
    });
    requireSame(expected, restored, 'a restored state gives other logits than the one it was taken from');
    return sameBits(expected, await test.tokensInCompany()) ? 'tokens' : 'none';
  } finally {
    await context.clear();
  }
}

/** Whether these are the same floats, bit by bit: a NaN is one, and -0 is not 0. */
export function sameBits(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);
  return a.length === b.length && a.every((row, index) => bytes(row).equals(bytes(b[index] ?? new Float32Array())));
}

/** A state was not taken or not taken back: that says something of the model, where all else (no memory, closed) does not. */
function isRefused(error: unknown): boolean {
  return (
    HeadstartError.isInstance(error, 'CAPTURE_FAILED') ||
    HeadstartError.isInstance(error, 'RESTORE_FAILED') ||
    HeadstartError.isInstance(error, 'STATE_INCOMPATIBLE')
  );
}

function requireSame(expected: readonly Float32Array[], actual: readonly Float32Array[], reason: string): void {
  if (!sameBits(expected, actual)) {
    throw notReproducible(reason);
  }
}

function notReproducible(reason: string, cause?: unknown): HeadstartError {
  return new HeadstartError('NOT_REPRODUCIBLE', `Replies of this model cannot be reproduced to the bit: ${reason}`, {
    cause,
  });
}
