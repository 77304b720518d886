// Reads files with requests of any dialect, and with templates.
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { throwIfAborted } from '../abort.js';
import type { ChatRequest } from '../chat/chat.js';
import { readTolerantHistory } from '../chat/tolerant-history.js';
import { HeadstartError } from '../errors.js';
import { isObject, type JsonObject } from '../json.js';
import { readMessages } from '../server/anthropic/messages.js';
import type { ReadReplyRequest } from '../server/handler.js';
import { HttpError } from '../server/http/http-error.js';
import { readChatCompletion } from '../server/openai/chat-completions.js';
import { Responses } from '../server/responses/responses.js';
import type { ServedModel } from '../server/served-model.js';
import { HANDLER_OPTIONS } from '../server/server-options.js';
import { readStandardInput } from './inputs/standard-input.js';
import type { CliIo } from './io.js';

/** A template, as `templateCache.warm` takes it. */
export interface RecordedTemplate {
  systemPrompt?: string;
  tools?: ChatRequest['tools'];
  tenant?: string;
}

/** What a reader of requests needs. */
interface Reading {
  model: ServedModel;
  io: CliIo;
  signal: AbortSignal;
}

/**
 * Reads a file with one request: the body of a request for chat completions, messages or responses, or an object with
 * `headers` and `body`. `-` is standard input.
 *
 * @throws HeadstartError `READ_FAILED`, `INVALID_ARGUMENT`.
 */
export async function readRecordedRequest(path: string, reading: Reading): Promise<ChatRequest> {
  const json = await readJsonFile(path, reading);
  if (!isObject(json)) {
    throw wrongFile(path, 'Expected a JSON object with a request');
  }
  return requestOf(path, json, reading);
}

/**
 * Reads a file with templates: one object with `systemPrompt` and `tools`, a list of them, or a request.
 *
 * @throws HeadstartError `READ_FAILED`, `INVALID_ARGUMENT`.
 */
export async function readTemplates(path: string, reading: Reading): Promise<RecordedTemplate[]> {
  const json = await readJsonFile(path, reading);
  const items = Array.isArray(json) ? json : [json];
  return items.map((item) => {
    if (!isObject(item)) {
      throw wrongFile(path, 'Expected a JSON object with `systemPrompt` and `tools`, or a request');
    }
    return dialectOf(item) === undefined ? (item as RecordedTemplate) : templateOf(requestOf(path, item, reading));
  });
}

/** The template of a request: its first system messages and its tools. */
export function templateOf({ messages, tools, tenant }: ChatRequest): RecordedTemplate {
  const { systemPrompt } = readTolerantHistory(messages);
  return {
    ...(systemPrompt !== undefined && { systemPrompt }),
    ...(tools !== undefined && { tools }),
    ...(tenant !== undefined && { tenant }),
  };
}

async function readJsonFile(path: string, { io, signal }: Reading): Promise<unknown> {
  let text: string;
  try {
    text = path === '-' ? await readStandardInput(io, signal) : await readFile(resolve(io.cwd, path), 'utf8');
  } catch (cause) {
    throwIfAborted(signal);
    throw new HeadstartError('READ_FAILED', `Could not read "${path}": ${(cause as Error).message}.`, { cause });
  }
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (cause) {
    throw wrongFile(path, `Expected JSON: ${(cause as Error).message}`, cause);
  }
}

function requestOf(path: string, json: JsonObject, { model, signal }: Reading): ChatRequest {
  const isRecording = isObject(json.body);
  const body = isRecording ? (json.body as JsonObject) : json;
  const address = String(json.path ?? json.url ?? '');
  const read = dialectOf(body, address);
  if (read === undefined) {
    throw wrongFile(path, 'Expected the body of a request with `messages` or `input`');
  }
  const headers = new Headers(isRecording && isObject(json.headers) ? (json.headers as Record<string, string>) : {});
  try {
    const [choice] = read(body, {
      model,
      headers,
      client: { isAdmin: true, tenant: undefined },
      signal,
      wantedRules: { normalizers: true, portableHeads: false },
    }).choices;
    if (choice === undefined || typeof choice === 'function') {
      throw wrongFile(path, 'Expected a request for a reply to a conversation');
    }
    return choice;
  } catch (error) {
    throw error instanceof HttpError ? wrongFile(path, error.message, error) : error;
  }
}

/** Reads the body of each dialect. */
function dialectOf(body: JsonObject, address = ''): ReadReplyRequest | undefined {
  const { input, messages, system, tools, anthropic_version: version } = body;
  if (/\/responses$/.test(address) || (input !== undefined && messages === undefined)) {
    return new Responses(HANDLER_OPTIONS.parse({})).read;
  }
  const hasAnthropicTools =
    Array.isArray(tools) && tools.some((tool) => isObject(tool) && tool.input_schema !== undefined);
  if (/\/messages$/.test(address) || system !== undefined || version !== undefined || hasAnthropicTools) {
    return messages === undefined ? undefined : readMessages;
  }
  return messages === undefined ? undefined : readChatCompletion;
}

function wrongFile(path: string, problem: string, cause?: unknown): HeadstartError {
  return new HeadstartError('INVALID_ARGUMENT', `"${path}" cannot be used. ${problem}.`, { cause });
}
