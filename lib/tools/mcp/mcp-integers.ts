// Keeps the digits of integers beyond 2^53 in the results of MCP tools: while a result is parsed and passes through the SDK, a
// marked string stands for each such integer.
import { randomUUID } from 'node:crypto';
import { replaceInexactIntegers } from '../../prompt/exact-json.js';
import { isObject } from '../../schema-walk.js';

/** Random, so that no server can write it. */
const MARK = `integer ${randomUUID()} `;
const MARKED = new RegExp(`"?${MARK}(-?\\d+)"?`, 'g');

/**
 * JSON.parse of a JSON-RPC message.
 *
 * @throws SyntaxError
 */
export function parseMessage(json: string): unknown {
  const marked = replaceInexactIntegers(json, (digits) => `"${MARK}${digits}"`);
  const message: unknown = JSON.parse(marked);
  return marked === json || !isListing(message) ? message : JSON.parse(json);
}

/** The numbers of a listing (bounds in schemas, cursors) may be rounded, but must not become strings. */
function isListing(message: unknown): boolean {
  return isObject(message) && isObject(message.result) && ('tools' in message.result || 'prompts' in message.result);
}

/** A text, or JSON, with the real digits in place of marked strings. */
export function withRealIntegers(text: string): string {
  return text.includes(MARK) ? text.replace(MARKED, '$1') : text;
}
