// Fetches a listing of an MCP server page by page. Does not use the SDK's schemas, because they refuse a whole page if
// one entry is invalid.
import type { Client, RequestOptions, StandardSchemaV1 } from '@modelcontextprotocol/client';
import { HeadstartError } from '../../errors.js';
import { isObject, type JsonObject } from '../../json.js';
import { kindOf } from './mcp-schema.js';

/** Maximum number of pages. Later pages are not fetched, because the listings of some servers never end. */
const MAX_PAGES = 64;

/** A schema with which the SDK accepts any result. This package checks results itself. */
export const ANY_RESULT: StandardSchemaV1<unknown, JsonObject> = {
  '~standard': { version: 1, vendor: 'llama-headstart', validate: (value) => ({ value: value as JsonObject }) },
};

/**
 * Fetches the entries of all pages, without checking the entries. If a page after the first one fails, returns the
 * entries of the earlier pages.
 *
 * @param warn is called with the reason if the listing is incomplete
 * @throws the errors of the SDK; HeadstartError `MCP_FAILED` if the first page has no list
 */
export async function listAll(
  client: Client,
  kind: 'tools' | 'prompts',
  options: RequestOptions,
  warn: (message: string) => void,
): Promise<unknown[]> {
  const entries: unknown[] = [];
  const names = new Set<unknown>();
  const cursors = new Set<unknown>();
  let page = await listPage(client, kind, undefined, options);
  for (let count = 1; ; count++) {
    if (page.entries.length > 0 && page.entries.every((entry) => names.has(nameOf(entry)))) {
      return entries; // some servers ignore the cursor and send the same page again
    }
    entries.push(...page.entries);
    for (const entry of page.entries) {
      names.add(nameOf(entry));
    }
    const { cursor } = page;
    if (cursor === undefined || cursor === null || cursors.has(cursor)) {
      return entries;
    }
    if (typeof cursor !== 'string' && typeof cursor !== 'number') {
      warn(`the cursor after page ${count} of its ${kind} is ${kindOf(cursor)}: later pages are ignored`);
      return entries;
    }
    cursors.add(cursor);
    if (count === MAX_PAGES) {
      warn(`it lists its ${kind} in more than ${MAX_PAGES} pages: only the first ${MAX_PAGES} pages are used`);
      return entries;
    }
    try {
      page = await listPage(client, kind, cursor, options);
    } catch (error) {
      if (!isAnswer(error)) {
        throw error;
      }
      const { message } = error as Error;
      warn(`page ${count + 1} of its ${kind} could not be read, and only the earlier pages are used: ${message}`);
      return entries;
    }
  }
}

/** Whether the server itself answered with this error. Such an answer shows that the server is alive. */
export function isAnswer(error: unknown): boolean {
  return HeadstartError.isInstance(error) || typeof (error as { code?: unknown } | null)?.code === 'number';
}

interface Page {
  entries: readonly unknown[];
  /**
   * The cursor of the next page. A cursor of any type is sent back unchanged, because only the server knows its
   * meaning.
   */
  cursor: unknown;
}

async function listPage(
  client: Client,
  kind: 'tools' | 'prompts',
  cursor: string | number | undefined,
  options: RequestOptions,
): Promise<Page> {
  const request = { method: `${kind}/list`, ...(cursor !== undefined && { params: { cursor } }) };
  const { [kind]: listed, content, nextCursor } = await client.request(request, ANY_RESULT, options);
  // If the result itself was a list, repairMessage() has moved it to `content`.
  const resultList = Array.isArray(content) ? content : [];
  const entries = listed ?? resultList; // servers in Go write an empty list as null
  if (!Array.isArray(entries)) {
    throw new HeadstartError('MCP_FAILED', `Expected \`${kind}\` to be an array, got ${kindOf(listed)}`);
  }
  return { entries, cursor: nextCursor };
}

/** The name of an entry. For an entry without a name, an object that equals no other name. */
function nameOf(entry: unknown): unknown {
  return isObject(entry) && typeof entry.name === 'string' ? entry.name : {};
}
