import type { z } from 'zod';
import { HttpError } from './http-error.js';

/**
 * Checks a body. Unknown fields are dropped: clients send fields of newer versions, and give up features one by one if
 * a server refuses them.
 *
 * @throws HttpError 400.
 */
export function checkedBody<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  const { success, data, error } = schema.safeParse(body);
  if (!success) {
    const [issue] = error.issues;
    const place = issue?.path.join('.') ?? '';
    throw new HttpError(400, 'invalid_request', `${place === '' ? 'The body' : `\`${place}\``}: ${issue?.message}`);
  }
  return data;
}
