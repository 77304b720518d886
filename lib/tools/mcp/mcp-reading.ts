// Reads the messages of a server for the SDK's transports. Repairs messages so that the SDK accepts them, and limits
// their length.
import type { Transformer } from 'node:stream/web';
import type { JsonObject } from '../../json.js';
import { parseMessage } from './mcp-integers.js';
import { idInEdges, type Line, LineReader, MAX_MESSAGE_BYTES } from './mcp-lines.js';
import { errorMessage, repairMessage } from './mcp-message.js';

const TOO_LONG = `it sent a message of more than ${MAX_MESSAGE_BYTES / 1024 ** 2} MiB, which is the limit`;

/**
 * Replaces the SDK's buffer for the standard output of a child process. The SDK's buffer would close the server at a
 * message of 10 MiB.
 */
export class StdioMessages {
  readonly #onLog: (line: string) => void;
  #lines = new LineReader();
  #messages: JsonObject[] = [];

  /** @param onLog is called with each line that is not a message */
  constructor(onLog: (line: string) => void) {
    this.#onLog = onLog;
  }

  append(chunk: Uint8Array): void {
    for (const line of this.#lines.push(chunk)) {
      const messages = messagesIn(line);
      this.#messages.push(...messages);
      if (messages.length === 0 && line.text.trim() !== '') {
        this.#onLog(line.isTooLong ? TOO_LONG : line.text);
      }
    }
  }

  readMessage(): JsonObject | null {
    return this.#messages.shift() ?? null;
  }

  clear(): void {
    this.#lines = new LineReader();
    this.#messages = [];
  }
}

/** A `fetch` that repairs the messages of a response. Rejects if a JSON response is too long. */
export async function fetchMessages(url: string | URL, init?: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  const type = response.headers.get('content-type') ?? '';
  if (!response.ok || response.body === null) {
    return response;
  }
  if (/^text\/event-stream/i.test(type)) {
    return withBody(response, response.body.pipeThrough(new TransformStream(repairEvents())));
  }
  return /^application\/json/i.test(type) ? withBody(response, repairBody(await readBody(response.body))) : response;
}

/** Returns the repaired messages of a line. If a message is too long, returns an error response for its request. */
function messagesIn({ text, isTooLong }: Line): JsonObject[] {
  if (isTooLong) {
    const id = idInEdges(text);
    return id === undefined ? [] : [errorMessage(id, TOO_LONG)];
  }
  try {
    const parsed = parseMessage(text);
    return [parsed]
      .flat()
      .map(repairMessage)
      .filter((message) => message !== undefined);
  } catch {
    return [];
  }
}

/**
 * Returns the repaired messages of a line as JSON. Empty if a message is nested too deeply for JSON.stringify: callers
 * then keep the line unchanged.
 */
function messageTexts(line: Line): string[] {
  try {
    return messagesIn(line).map((message) => JSON.stringify(message));
  } catch {
    return [];
  }
}

/** Repairs the messages in the lines of an event stream. */
function repairEvents(): Transformer<Uint8Array, Uint8Array> {
  const lines = new LineReader();
  const encoder = new TextEncoder();
  return {
    transform(chunk, controller) {
      for (const line of lines.push(chunk)) {
        controller.enqueue(encoder.encode(`${repairEventLine(line)}\n`));
      }
    },
    flush: (controller) => controller.enqueue(encoder.encode(repairEventLine(lines.end()))),
  };
}

function repairEventLine(line: Line): string {
  const data = /^data:/.test(line.text) ? line.text.slice('data:'.length) : undefined;
  const texts = data === undefined ? [] : messageTexts({ ...line, text: data });
  if (texts.length === 0) {
    return line.isTooLong ? `: ${TOO_LONG}` : line.text;
  }
  return texts.map((text) => `data: ${text}`).join('\n\n');
}

async function readBody(body: ReadableStream<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of body) {
    bytes += piece.length;
    if (bytes > MAX_MESSAGE_BYTES) {
      throw new Error(TOO_LONG); // leaving the loop cancels the request
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function repairBody(text: string): string {
  const texts = messageTexts({ text, isTooLong: false });
  return texts.length > 1 ? `[${texts.join()}]` : (texts[0] ?? text);
}

function withBody({ status, statusText, headers }: Response, body: string | ReadableStream<Uint8Array>): Response {
  return new Response(body, { status, statusText, headers });
}
