import { HeadstartError } from '../errors.js';

/** The error of messages that cannot be used. */
export function invalidMessage(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('INVALID_ARGUMENT', message, { cause });
}
