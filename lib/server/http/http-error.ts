import { type ErrorCode, HeadstartError } from '../../errors.js';

/** A refusal of a request, independent of the dialect. */
export class HttpError extends Error {
  readonly status: number;
  /** A short name for programs. */
  readonly code: string;
  /** More headers of the response. */
  readonly headers: Readonly<Record<string, string>>;
  /** The length of a prompt that does not fit into the context, and the maximum length, in tokens. */
  readonly prompt: { tokens: number; maxTokens: number } | undefined;

  constructor(
    status: number,
    code: string,
    message: string,
    { headers = {}, prompt }: Partial<Pick<HttpError, 'headers' | 'prompt'>> = {},
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
    this.prompt = prompt;
  }
}

/** The status of a request whose client left, as in nginx. The client never sees this status. */
export const CLIENT_LEFT = 499;
/** Clients repeat a request that was refused with status 429 after this time, in seconds. */
const RETRY_AFTER = '5';

/** Errors that the body of a request causes. */
const CAUSED_BY_REQUEST: ReadonlySet<ErrorCode> = new Set([
  'INVALID_ARGUMENT',
  'CONFIG_INVALID',
  'SCHEMA_INVALID',
  'SCHEMA_MISMATCH',
  'GRAMMAR_INVALID',
  'JSON_TOO_DEEP',
  'TEXT_TOO_LONG',
  'TEXT_UNBREAKABLE',
  'CHAT_TEMPLATE_FAILED',
  'NO_CHAT_TEMPLATE',
  'TOKEN_OUT_OF_RANGE',
]);

/**
 * Refuses a request because too many are in progress. Without `Retry-After`, Codex gives up. After status 503, Claude
 * Code gives up.
 */
export function busy(): HttpError {
  return new HttpError(429, 'rate_limit_exceeded', 'The server is busy: too many requests wait. Try again soon.', {
    headers: { 'retry-after': RETRY_AFTER },
  });
}

/** Finds the status, code and message of an error. */
export function httpErrorOf(error: unknown): HttpError {
  if (error instanceof HttpError) {
    return error;
  }
  if (!HeadstartError.isInstance(error)) {
    return new HttpError(500, 'internal_error', 'The server failed to answer the request');
  }
  const { code, message, tokens, maxTokens } = error;
  if (code === 'CONTEXT_FULL' && tokens !== undefined && maxTokens !== undefined) {
    return new HttpError(400, 'context_length_exceeded', message, { prompt: { tokens, maxTokens } });
  }
  if (CAUSED_BY_REQUEST.has(code)) {
    return new HttpError(400, code.toLowerCase(), message);
  }
  switch (code) {
    case 'QUEUE_FULL':
      return busy();
    case 'ENTRY_MISSING':
      return new HttpError(404, 'entry_missing', message);
    case 'ABORTED':
      return new HttpError(CLIENT_LEFT, 'aborted', message);
    case 'CLOSED':
      return new HttpError(503, 'closed', 'The server is shutting down');
    default:
      return new HttpError(500, code.toLowerCase(), message);
  }
}
