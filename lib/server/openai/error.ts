import type { HttpError } from '../http/http-error.js';

/** An error in the form of OpenAI's API. */
export function openAiError({ status, code, message }: HttpError): object {
  return { error: { message, type: typeOf(status), param: null, code } };
}

/** OpenAI's API has no types of its own for unknown objects and wrong keys: the code tells what is wrong. */
function typeOf(status: number): string {
  switch (status) {
    case 403:
      return 'permission_error';
    case 429:
      return 'rate_limit_error';
    default:
      return status >= 500 ? 'server_error' : 'invalid_request_error';
  }
}
