// What came of a batch, and how those who asked are told.
import { HeadstartError } from '../errors.js';
import type { Slice } from './batch.js';
import type { Decoded, PendingRequest } from './decode-request.js';
import type { EngineContext } from './engine-context.js';

/** Logits and probabilities are of the newest batch: asked for at once, before the next. Undefined where nobody asks. */
export function requestExtras(context: EngineContext, slices: readonly Slice[]): Promise<Partial<Decoded>[]> | undefined {
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
      // Where the decode failed, so do these: its own failure is what counts.
      const [all, likely] = await Promise.all([
        isLast && logits ? context.logits(row).catch(() => undefined) : undefined,
        isLast && logProbabilities > 0
          ? context.logProbabilities(row, logProbabilities).catch(() => undefined)
          : undefined,
      ]);
      return { ...(all && { logits: all }), ...(likely && { logProbabilities: likely }) };
    }),
  );
}

/** Tells who asked what is in its sequence. What that throws is nobody else's affair. */
export function reportDecoded({ request, done }: PendingRequest, count: number): { error: unknown } | undefined {
  try {
    const { tokens, onDecoded } = request;
    onDecoded?.(count === tokens.length ? tokens : tokens.subarray(done, done + count));
    return undefined;
  } catch (error) {
    return { error };
  }
}

/** A request is decoded: its promise gets the token, or why there is none. */
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

/** A sampler's failure is its own request's: the others have their tokens. */
export function picksFrom(error: unknown): Int32Array {
  if (HeadstartError.isInstance(error) && error.picks !== undefined) {
    return error.picks;
  }
  throw error;
}
