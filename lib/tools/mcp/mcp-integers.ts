// Keeps the digits of integers beyond 2^53 in the results of MCP tools. A marked string replaces each such integer
// before the result is parsed and given to the SDK. Afterwards the digits replace the marked string.
import { randomUUID } from 'node:crypto';
import { isObject } from '../../json.js';
import { replaceInexactIntegers } from '../../prompt/exact-json.js';

/** A random mark, which no server can write. */
const MARK = `integer ${randomUUID()} `;
const MARKED = new RegExp(`"?${MARK}(-?\\d+)"?`, 'g');

/**
 * Parses a JSON-RPC message. Integers beyond 2^53 become marked strings, except in listings.
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

/** Replaces the marked strings in a text, or in JSON, by their digits. */
export function withRealIntegers(text: string): string {
  return text.includes(MARK) ? text.replace(MARKED, '$1') : text;
}
