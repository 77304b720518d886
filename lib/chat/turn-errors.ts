// Rewrites errors of decodes and queues, so that the message names the method that the program called.
import { HeadstartError } from '../errors.js';
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
 * The error to report for an activity that failed. If the activity was aborted, or its session or agent was closed, the
 * message says so.
 *
 * @param names.what what the message calls the activity, for example "turn"
 * @param names.owner what was closed if `closing` has aborted: "session" or "agent"
 */
export function failureOf(
  error: unknown,
  { what, owner }: { what: string; owner: string },
  { closing, signal, ...limit }: TimeLimit & { closing: AbortSignal; signal: AbortSignal },
): unknown {
  return closing.aborted
    ? new HeadstartError('CLOSED', `The ${owner} was closed during this ${what}`, { cause: error })
    : asAborted(error, `The ${what}`, limit, signal);
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
 * The error for a prompt that leaves no space for a reply.
 *
 * @param what begins the message, for example "The prompt"
 * @param remedy tells what the program can do
 */
export function contextFull(what: string, tokens: number, contextSize: number, remedy: string): HeadstartError {
  const maxTokens = contextSize - 1; // a reply has at least one token
  return new HeadstartError(
    'CONTEXT_FULL',
    `${what} has ${tokens} tokens, which is more than the maximum of ${maxTokens} in a context of ${contextSize}. ${remedy}`,
    { tokens, maxTokens },
  );
}
