// Converts the results of MCP servers to text for the model. Accepts every result, so that no result of a finished tool
// is lost.
import { HeadstartError } from '../../errors.js';
import { isObject, type JsonObject } from '../../json.js';
import { withRealIntegers } from './mcp-integers.js';
import { readBoolean } from './mcp-listing.js';
import { kindOf } from './mcp-schema.js';

/** A message of a filled-in prompt, ready to be sent. */
export interface McpPromptMessage {
  /** The author of the message. */
  role: 'user' | 'assistant';
  /** The text. A note replaces content that a text model cannot read, for example an image. */
  content: string;
}

/** Types of content that a text model cannot read. A note replaces such content. */
const UNREADABLE_TYPES = new Set(['image', 'audio', 'video', 'resource', 'resource_link']);
/** Maximum length of a part of a note, in characters. An address may contain a whole file (`data:`). */
const MAX_NOTE_PART = 200;

interface Piece {
  text: string;
  /** False if the text is a note about content that a text model cannot read. */
  isReadable: boolean;
}

/**
 * Returns the result of a tool as text, and whether the tool failed. A note replaces content that a text model cannot
 * read. `structuredContent` is used only if there is no other readable content. `structuredContent` is not checked
 * against the tool's `outputSchema`, because the model reads only text.
 */
export function readResult(result: JsonObject): { text: string; isError: boolean } {
  const { content, structuredContent, isError, _meta, ...others } = result;
  const pieces = content === undefined || content === null ? [] : readContents(content);
  if (!pieces.some(({ text, isReadable }) => isReadable && text !== '')) {
    const data = structuredContent ?? (pieces.length === 0 ? otherData(others) : undefined);
    if (data !== undefined) {
      pieces.push({ text: textOf(data), isReadable: true });
    }
  }
  return { text: pieces.map(({ text }) => text).join('\n'), isError: readBoolean(isError) };
}

/**
 * Returns the messages of a prompt. Every role other than `assistant` becomes `user`.
 *
 * @throws HeadstartError `MCP_FAILED` if the result has no messages.
 */
export function readPromptMessages({ messages }: JsonObject): McpPromptMessage[] {
  if (messages === undefined || messages === null) {
    throw new HeadstartError('MCP_FAILED', `Expected \`messages\` to be an array, got ${kindOf(messages)}`);
  }
  return [messages].flat().map((message: unknown) => {
    const { role, content } = isObject(message) && 'content' in message ? message : { role: 'user', content: message };
    const texts = readContents(content).map(({ text }) => text);
    return { role: role === 'assistant' ? 'assistant' : 'user', content: texts.join('\n') };
  });
}

/**
 * The data of a result without content: `toolResult` (before protocol version 2024-11-05), or else all other fields.
 */
function otherData({ toolResult, ...others }: JsonObject): unknown {
  return toolResult ?? (Object.keys(others).length > 0 ? others : undefined);
}

/** @param content an array, an array in an array, or a single piece */
function readContents(content: unknown): Piece[] {
  return [content].flat(2).map(readContent);
}

function readContent(content: unknown): Piece {
  if (content === null || content === undefined) {
    return { text: '[content missing]', isReadable: false };
  }
  if (!isObject(content)) {
    return { text: textOf(content), isReadable: true };
  }
  const text = content.text ?? (isObject(content.resource) ? content.resource.text : undefined);
  if (text !== undefined && text !== null) {
    return { text: textOf(text), isReadable: true };
  }
  const { type } = content;
  if (type === 'text') {
    return { text: '', isReadable: true };
  }
  return hasBytes(content) || UNREADABLE_TYPES.has(String(type))
    ? { text: noteOf(content), isReadable: false }
    : { text: textOf(content), isReadable: true }; // an unknown type: the model gets its data as JSON
}

function hasBytes({ data, blob }: JsonObject): boolean {
  return typeof data === 'string' || typeof blob === 'string';
}

function noteOf(content: JsonObject): string {
  const { type, resource, ...fields } = content;
  const { data, blob, mimeType, uri } = { ...fields, ...(isObject(resource) ? resource : {}) } as JsonObject;
  const bytes = [data, blob].find((each) => typeof each === 'string') as string | undefined;
  const size = bytes !== undefined && `${Math.floor((bytes.length * 3) / 4)} bytes`;
  const parts = [type ?? 'content', mimeType, uri, size].filter((part) => typeof part === 'string');
  return `[${parts.map((part) => (part.length > MAX_NOTE_PART ? `${part.slice(0, MAX_NOTE_PART)}...` : part)).join(', ')}]`;
}

function textOf(value: unknown): string {
  try {
    return withRealIntegers(typeof value === 'string' ? value : JSON.stringify(value));
  } catch {
    return '[data that nests too deeply]'; // JSON.stringify overflowed the stack
  }
}
