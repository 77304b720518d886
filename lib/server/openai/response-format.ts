import { HttpError } from '../http/http-error.js';

/**
 * The JSON Schema of a format; undefined if the format is text.
 *
 * @param place the field of the schema, for the message of an error
 * @throws HttpError 400.
 */
export function formatSchema(type: string | undefined, schema: unknown, place: string): object | undefined {
  if (type === 'json_object') {
    return { type: 'object' };
  }
  if (type !== 'json_schema') {
    return undefined;
  }
  if (typeof schema !== 'object' || schema === null) {
    throw new HttpError(400, 'invalid_request', `\`${place}\`: expected a JSON Schema`);
  }
  return schema;
}
