// After a decode: what each request of the batch gets.
import { HeadstartError } from '../errors.js';
import type { Slice } from './batch.js';
import type { Decoded, PendingRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';

/**
 * Requests logits and log-probabilities, which the context keeps only until the next decode. Call it right after that decode was
 * started.
 *
 * @returns undefined if no request wants them
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

/** Calls a request's `onDecoded` with its newest tokens. An error that it throws concerns that request only. */
export function reportDecoded({ request, done }: PendingRequest, count: number): { error: unknown } | undefined {
  try {
    const { tokens, onDecoded } = request;
    onDecoded?.(count === tokens.length ? tokens : tokens.subarray(done, done + count));
    return undefined;
  } catch (error) {
    return { error };
  }
}

/** Settles the promise of a request that is fully decoded: with its token, or with the sampler's error if `token` is negative. */
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

/** The tokens of a decode in which a sampler failed: its own row is negative, all others are valid. Rethrows other errors. */
export function picksFrom(error: unknown): Int32Array {
  if (HeadstartError.isInstance(error) && error.picks !== undefined) {
    return error.picks;
  }
  throw error;
}
