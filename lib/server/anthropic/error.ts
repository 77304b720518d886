import type { HttpError } from '../http/http-error.js';

const TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
};

/**
 * An error in the form of Anthropic's API. The words "prompt is too long" make Claude Code compact the conversation.
 */
export function anthropicError({ status, message, prompt }: HttpError): object {
  const text =
    prompt === undefined ? message : `prompt is too long: ${prompt.tokens} tokens > ${prompt.maxTokens} maximum`;
  const type = TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
  return { type: 'error', error: { type, message: text } };
}
