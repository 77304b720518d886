// Tests at load time whether a model's kernels allow `reproducible`.
import { HeadstartError } from '../../errors.js';
import type { Context } from '../../native/context.js';
import { KernelTest } from './kernel-test.js';

/**
 * Which requests may share a batch without changing each other's bits. Chunks of prompts never share a batch: in split
 * streams llama.cpp cuts a mixed batch into parts of equal length, and attention computes a single row differently from
 * several rows. In quantized models rounding hides this difference most of the time, so a test could miss it.
 */
export type BatchInvariance =
  /** Single tokens may share a batch; a chunk of a prompt is decoded alone. */
  | 'tokens'
  /** Each request is decoded alone. */
  | 'none';

/**
 * Decodes a prompt and single tokens twice, then in another sequence, then from a restored state, and then in batches
 * with other sequences.
 *
 * @param context an empty context with split streams and flash attention off; it is empty afterwards
 * @returns which requests may share a batch
 * @throws HeadstartError `NOT_REPRODUCIBLE` with the reason, if even requests that are decoded alone differ; `ABORTED`.
 */
export async function testReproducible(context: Context, signal?: AbortSignal): Promise<BatchInvariance> {
  const { maxSequences, fullSlidingWindow } = context.info;
  if (context.model.slidingWindow > 0 && fullSlidingWindow) {
    throw notReproducible(
      '`fullSlidingWindow` keeps all cells of sliding-window layers, but a restored state does not contain all of them. ' +
        'Set `fullSlidingWindow: false`',
    );
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
    requireSame(expected, restored, 'a restored state gives different logits than the original');
    return sameBits(expected, await test.tokensInBatches()) ? 'tokens' : 'none';
  } finally {
    await context.clear();
  }
}

/** Compares all bits: NaNs with equal bits are the same, and -0 differs from 0. */
export function sameBits(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  const bytes = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);
  return a.length === b.length && a.every((row, index) => bytes(row).equals(bytes(b[index] ?? new Float32Array())));
}

/** Whether the model cannot capture or restore states. Other errors (out of memory, closed) have other causes. */
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
  return new HeadstartError('NOT_REPRODUCIBLE', `This model's replies cannot be reproduced to the bit: ${reason}`, {
    cause,
  });
}
