// Rewrites errors of decodes and queues in terms of the method that the program called.
import { HeadstartError } from '../errors.js';
import type { Usage } from '../usage.js';

/** A time limit for a reply. */
export interface TimeLimit {
  deadline?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
}

/**
 * Rewrites `ABORTED` so that it names the call that was aborted, and says whether the caller's signal did it or a time
 * limit that passed before the first token. Returns other errors unchanged.
 *
 * @param what begins the message, for example "The turn"
 */
export function asAborted(error: unknown, what: string, { deadline, timeoutMs }: TimeLimit = {}, signal?: AbortSignal) {
  if (!HeadstartError.isInstance(error, 'ABORTED')) {
    return error;
  }
  if (HeadstartError.isInstance(error.cause, 'ABORTED')) {
    return error.cause; // the program left the stream
  }
  const isLate = deadline?.aborted === true && signal?.aborted !== true;
  const message = isLate
    ? `${what} was aborted: \`timeoutMs\` (${timeoutMs} ms) passed before the first token. Raise \`timeoutMs\`.`
    : `${what} was aborted`;
  return new HeadstartError('ABORTED', message, { cause: isLate ? deadline.reason : error.cause });
}

/** Adds the cost of its turn or completion to an error. */
export function withUsage(error: unknown, usage: Usage): unknown {
  if (HeadstartError.isInstance(error)) {
    error.usage = usage;
  }
  return error;
}

/** The error for a prompt that fills the context. */
export function contextFull(promptTokens: number, contextSize: number, isCompacted: boolean): HeadstartError {
  const remedy = isCompacted
    ? '`compaction` has already replaced all but its newest part. Raise `contextSize`, or start a new session.'
    : 'Raise `contextSize`, set `compaction` or call `session.compact()`, or start a new session.';
  return new HeadstartError(
    'CONTEXT_FULL',
    `The conversation has ${promptTokens} tokens, which leaves no space for a reply in a context of ${contextSize}. ` +
      `${remedy} If results of tools fill the context, lower \`maxToolResultLength\`.`,
  );
}
