// Passes the results of a decode, or its failure, to the requests of its batch.
import { HeadstartError } from '../errors.js';
import type { Slice } from './batch.js';
import type { Decoded, DecodeRequest, PendingRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';

/**
 * Asks the context for the logits and log-probabilities of a decode. The context keeps them only until the next decode,
 * so call this right after the start of the decode.
 *
 * @returns undefined if no request needs them
 */
export function requestExtras(
  context: EngineContext,
  slices: readonly Slice[],
): Promise<Partial<Decoded>[]> | undefined {
  if (!slices.some(({ pending: { request } }) => request.logits || request.logProbabilities)) {
    return undefined;
  }
  let end = 0;
  return Promise.all(
    slices.map(async ({ pending, count }) => {
      const { logits, logProbabilities = 0 } = pending.request;
      end += count;
      const row = end - 1;
      const isLast = count === pending.remaining;
      // If the decode failed, these calls fail too. The decode reports the error.
      const [allLogits, top] = await Promise.all([
        isLast && logits ? context.logits(row).catch(() => undefined) : undefined,
        isLast && logProbabilities > 0
          ? context.logProbabilities(row, logProbabilities).catch(() => undefined)
          : undefined,
      ]);
      return { ...(allLogits && { logits: allLogits }), ...(top && { logProbabilities: top }) };
    }),
  );
}

/** Settles the promise of a request that is fully decoded. A negative `token` means that the sampler failed. */
export function settleRequest(
  { request, resolve, reject }: PendingRequest,
  token: number,
  extra: Partial<Decoded> | undefined,
): void {
  if (token >= 0) {
    resolve(extra === undefined ? { token } : { token, ...extra });
    return;
  }
  const failure = request.sampler?.failure;
  const message = 'The model computed logits that are not numbers: its weights or an adapter may be damaged';
  reject(new HeadstartError(failure?.code ?? 'LOGITS_INVALID', failure?.message ?? message));
}

/**
 * The chosen tokens of a decode in which a sampler failed. The token of that sampler is negative, and all other tokens
 * are valid. Rethrows errors that are not from a sampler.
 */
export function picksFrom(error: unknown): Int32Array {
  if (HeadstartError.isInstance(error) && error.picks !== undefined) {
    return error.picks;
  }
  throw error;
}

/**
 * Removes the tokens that a failed or aborted decode left in the KV cache. If the sequence cannot be trimmed, all of its
 * tokens are removed.
 *
 * @returns the error for the request, and whether all tokens were removed
 */
export async function clearFailed(
  error: unknown,
  { sequence }: DecodeRequest,
  canTrim: boolean,
): Promise<{ failure: unknown; isEmptied: boolean }> {
  if (!HeadstartError.isInstance(error) || error.sequences === undefined) {
    return { failure: error, isEmptied: false };
  }
  const isTrimmed = canTrim && (await sequence.trim(sequence.length).catch(() => false));
  if (!isTrimmed) {
    await sequence.clear().catch(() => undefined);
    return { failure: error, isEmptied: true };
  }
  const { code, message, cause } = error;
  return { failure: code === 'ABORTED' ? new HeadstartError(code, message, { cause }) : error, isEmptied: false };
}
