// What went wrong, in the words of who asked: decodes and queues speak of theirs.
import { HeadstartError } from '../errors.js';

/** A time limit that was set for a reply. */
export interface TimeLimit {
  deadline?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
}

/**
 * An abort, told as what was aborted: of the caller's signal, or of a time limit that passed before there was anything to keep.
 * Other errors stay as they are.
 *
 * @param what begins the message, for example "The turn"
 */
export function asAborted(error: unknown, what: string, { deadline, timeoutMs }: TimeLimit = {}, signal?: AbortSignal) {
  if (!HeadstartError.isInstance(error, 'ABORTED')) {
    return error;
  }
  const isLate = deadline?.aborted === true && signal?.aborted !== true;
  const message = isLate
    ? `${what} was ended: \`timeoutMs\` (${timeoutMs} ms) passed before there was a reply`
    : `${what} was aborted`;
  return new HeadstartError('ABORTED', message, { cause: isLate ? deadline.reason : error.cause });
}

/** A prompt that fills the context. */
export function noRoom(promptTokens: number, contextSize: number, isShortened: boolean): HeadstartError {
  return new HeadstartError(
    'CONTEXT_FULL',
    `The conversation has ${promptTokens} tokens and leaves no room for a reply in a context of ${contextSize}` +
      (isShortened
        ? ', though `compaction` left its newest part only: raise `contextSize`, or start a new session'
        : ': raise `contextSize`, set `compaction` or call `session.compact()`, or start a new session') +
      '; where results of tools are what fills it, lower `maxToolResultLength`',
  );
}
