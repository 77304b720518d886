// Rewrites errors of decodes and queues, so that the message names the method that the program called.
import { HeadstartError } from '../errors.js';
import type { UsageCounter } from '../generate/usage-counter.js';
import type { Usage } from '../usage.js';

/** A time limit for a reply. */
export interface TimeLimit {
  deadline?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
}

/**
 * Rewrites an `ABORTED` error. The new message names the aborted operation, and tells whether `timeoutMs` passed before
 * the first token. Returns other errors unchanged.
 *
 * @param what begins the message, for example "The turn"
 */
export function asAborted(error: unknown, what: string, { deadline, timeoutMs }: TimeLimit = {}, signal?: AbortSignal) {
  if (!HeadstartError.isInstance(error, 'ABORTED')) {
    return error;
  }
  if (HeadstartError.isInstance(error.cause, 'ABORTED')) {
    // The reader left the stream. Subscribers may keep the error, and a new error's stack could keep the session alive.
    return error.cause;
  }
  const isLate = deadline?.aborted === true && signal?.aborted !== true;
  const message = isLate
    ? `${what} was aborted: \`timeoutMs\` (${timeoutMs} ms) passed before the first token. Raise \`timeoutMs\`.`
    : `${what} was aborted`;
  return new HeadstartError('ABORTED', message, { cause: isLate ? deadline.reason : error.cause });
}

/**
 * Adds the cost of the turn or completion to its error. Several turns may fail with the same error object, for example
 * if they share a failed decode or an abort reason. Each turn after the first gets a copy, with its own usage.
 */
export function withUsage(error: unknown, usage: Usage): unknown {
  if (!HeadstartError.isInstance(error)) {
    return error;
  }
  const own = error.usage === undefined ? error : new HeadstartError(error.code, error.message, { cause: error });
  own.usage = usage;
  return own;
}

/**
 * The error of a request that belongs to no session.
 *
 * @param what the request, as the message names it: "completion"
 * @param how.closing aborts when the agent is closed
 */
export function requestError(
  error: unknown,
  what: string,
  {
    closing,
    limit: { signal, ...limit },
    usage,
  }: { closing: AbortSignal; limit: TimeLimit & { signal: AbortSignal }; usage: UsageCounter },
): unknown {
  const failure = closing.aborted
    ? new HeadstartError('CLOSED', `The agent was closed during this ${what}`, { cause: error })
    : asAborted(error, `The ${what}`, limit, signal);
  return withUsage(failure, usage.total());
}

/** The error for a prompt that fills the context. */
export function contextFull(promptTokens: number, contextSize: number, isCompacted: boolean): HeadstartError {
  const remedy = isCompacted
    ? '`compaction` has already replaced all of the conversation except the newest part. ' +
      'Raise `contextSize`, or start a new session.'
    : 'Raise `contextSize`, set `compaction` or call `session.compact()`, or start a new session.';
  return new HeadstartError(
    'CONTEXT_FULL',
    `The conversation has ${promptTokens} tokens, which leaves no space for a reply in a context of ${contextSize}. ` +
      `${remedy} If tool results fill the context, lower \`maxToolResultLength\`.`,
  );
}
