// Anthropic's messages: https://docs.anthropic.com/en/api/messages
import { randomUUID } from 'node:crypto';
import type { ChatRequest } from '../../chat/chat.js';
import type { ChatModel } from '../../chat/chat-model.js';
import type { FinishPart, Reply, StreamPart } from '../../generate/stream-parts.js';
import type { ToolCall } from '../../prompt/messages.js';
import type { Usage } from '../../usage.js';
import type { ReadReplyRequest, RequestDetails } from '../handler.js';
import { type ClientRequest, clientRequest } from '../http/client-request.js';
import type { HttpError } from '../http/http-error.js';
import { headstartOf, jsonEvent, type ReplyEvents, type ServerEvent } from '../http/reply-events.js';
import { CLAUDE_CODE } from '../normalizers/claude-code.js';
import { normalize } from '../normalizers/normalizer.js';
import { anthropicError } from './error.js';
import { type MessageBody, type MessageRequest, messageRequestOf, readMessageBody } from './message-request.js';
import { clientCallId, type ReplyBlock, unavailableResult } from './server-tools.js';

export const readMessages: ReadReplyRequest = (input, details) => {
  const { body, request, ...setting } = readMessageRequest(input, details);
  const message = new MessageWriter(details.model, request, setting);
  return {
    choices: [request],
    events: body.stream ? new MessageEvents(message) : undefined,
    body: ([reply]) => message.whole(reply as Reply),
  };
};

/**
 * Counts the tokens of a body's prompt. Needs no sequence, and does not wait for requests in progress.
 *
 * @throws HttpError 400, and the errors of `ChatModel.countTokens`.
 */
export async function countMessageTokens(input: unknown, details: RequestDetails): Promise<object> {
  const { request } = readMessageRequest(input, details);
  return { input_tokens: await details.model.countTokens(request, { signal: details.signal }) };
}

function readMessageRequest(
  input: unknown,
  details: RequestDetails,
): ClientRequest & MessageRequest & { body: MessageBody } {
  const { headers, wantedRules } = details;
  const { body, rules } = normalize([CLAUDE_CODE], readMessageBody(input), headers, wantedRules);
  const { request: read, serverTools } = messageRequestOf(body);
  const { request, rules: moves } = clientRequest(read, details);
  return { body, request, serverTools, rules: [...rules, ...moves] };
}

type MessageSetting = Pick<ClientRequest, 'rules'> & Pick<MessageRequest, 'serverTools'>;

/** Writes one message. */
class MessageWriter {
  readonly #fields: { id: string; type: 'message'; role: 'assistant'; model: string };
  /** Whether the request names places for cache entries. Its prefilled tokens then count as written to the cache. */
  readonly #isHinted: boolean;
  readonly #setting: MessageSetting;

  constructor({ id: model }: ChatModel, { cacheHints = [] }: ChatRequest, setting: MessageSetting) {
    this.#fields = { id: `msg_${randomUUID().replaceAll('-', '')}`, type: 'message', role: 'assistant', model };
    this.#setting = setting;
    this.#isHinted = cacheHints.length > 0;
  }

  whole(reply: Reply): object {
    const { text, reasoning, toolCalls } = reply;
    const answered = toolCalls.filter((call) => this.resultOf(call) !== undefined);
    const ofClient = toolCalls.filter((call) => this.resultOf(call) === undefined);
    return {
      ...this.#fields,
      content: [
        ...answered.flatMap((call) => [this.call(call, call.input), this.resultOf(call)]),
        ...(reasoning === '' ? [] : [{ type: 'thinking', thinking: reasoning, signature: '' }]),
        ...(text === '' && toolCalls.length > 0 ? [] : [{ type: 'text', text }]),
        ...ofClient.map((call) => this.call(call, call.input)),
      ],
      ...this.stop(reply),
      usage: this.usage(reply.usage),
      headstart: this.report(reply),
    };
  }

  /** The message before its first block. */
  begin(promptTokens: number): object {
    const nothing = { cache_creation_input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 0 };
    const usage = { input_tokens: promptTokens, ...nothing };
    return { ...this.#fields, content: [], stop_reason: null, stop_sequence: null, usage };
  }

  /** The block of a call. */
  call({ toolCallId, toolName: name }: Omit<ToolCall, 'input'>, input: unknown): ReplyBlock {
    const isOwn = this.#setting.serverTools.has(name);
    return {
      type: isOwn ? 'server_tool_use' : 'tool_use',
      id: isOwn ? clientCallId(toolCallId) : toolCallId,
      name,
      input: typeof input === 'string' ? { input } : input,
    };
  }

  /** The block with the result of a call; undefined if the client has to answer the call. */
  resultOf({ toolCallId, toolName }: Omit<ToolCall, 'input'>): ReplyBlock | undefined {
    const kind = this.#setting.serverTools.get(toolName);
    return kind === undefined ? undefined : unavailableResult(kind, toolCallId);
  }

  stop({ finishReason, detail, stopString }: Pick<FinishPart, 'finishReason' | 'detail' | 'stopString'>): object {
    const reason = detail === 'max-steps' ? 'pause_turn' : STOP_REASONS[finishReason];
    return { stop_reason: stopString === undefined ? reason : 'stop_sequence', stop_sequence: stopString ?? null };
  }

  report(end: Pick<FinishPart, 'cache'>): object {
    return headstartOf(end, this.#setting.rules);
  }

  usage({ inputTokens, cachedInputTokens, outputTokens }: Usage): object {
    const prefilled = inputTokens - cachedInputTokens;
    return {
      input_tokens: this.#isHinted ? 0 : prefilled,
      cache_creation_input_tokens: this.#isHinted ? prefilled : 0,
      cache_read_input_tokens: cachedInputTokens,
      output_tokens: outputTokens,
    };
  }
}

const STOP_REASONS = { stop: 'end_turn', length: 'max_tokens', 'tool-calls': 'tool_use', aborted: 'end_turn' } as const;

/** Writes the events of a streamed message. A message is a list of blocks, and only the last block is open. */
class MessageEvents implements ReplyEvents {
  readonly #message: MessageWriter;
  #blocks = 0;
  /** The open block: its type, or the id of its call. */
  #open: string | undefined;
  #finish: FinishPart | undefined;

  constructor(message: MessageWriter) {
    this.#message = message;
  }

  begin(promptTokens: number): ServerEvent[] {
    return [event({ type: 'message_start', message: this.#message.begin(promptTokens) }), ...this.keepAlive()];
  }

  keepAlive(): ServerEvent[] {
    return [event({ type: 'ping' })];
  }

  part(part: StreamPart): ServerEvent[] {
    switch (part.type) {
      case 'text-delta':
        return this.#delta('text', { type: 'text', text: '' }, { type: 'text_delta', text: part.text });
      case 'reasoning-delta': {
        const block = { type: 'thinking', thinking: '', signature: '' };
        return this.#delta('thinking', block, { type: 'thinking_delta', thinking: part.text });
      }
      case 'tool-input-start':
        return this.#begin(part.toolCallId, this.#message.call(part, {}));
      case 'tool-input-delta':
        return [this.#blockDelta({ type: 'input_json_delta', partial_json: part.delta })];
      case 'tool-result':
        return this.#whole(this.#message.resultOf(part));
      case 'finish':
        this.#finish = part;
        return [];
      default:
        return [];
    }
  }

  end(): ServerEvent[] {
    const finish = this.#finish as FinishPart;
    const delta = this.#message.stop(finish);
    const usage = this.#message.usage(finish.usage);
    const last = { type: 'message_delta', delta, usage, headstart: this.#message.report(finish) };
    return [...this.#close(), event(last), event({ type: 'message_stop' })];
  }

  fail(error: HttpError): ServerEvent[] {
    return [jsonEvent(anthropicError(error), 'error')];
  }

  #delta(name: string, block: object, delta: object): ServerEvent[] {
    return [...(this.#open === name ? [] : this.#begin(name, block)), this.#blockDelta(delta)];
  }

  #begin(name: string, block: object): ServerEvent[] {
    const closing = this.#close();
    this.#open = name;
    return [...closing, event({ type: 'content_block_start', index: this.#blocks, content_block: block })];
  }

  /** Writes a block that is known as a whole. */
  #whole(block: ReplyBlock | undefined): ServerEvent[] {
    return block === undefined ? [] : [...this.#begin(block.type, block), ...this.#close()];
  }

  #blockDelta(delta: object): ServerEvent {
    return event({ type: 'content_block_delta', index: this.#blocks, delta });
  }

  #close(): ServerEvent[] {
    if (this.#open === undefined) {
      return [];
    }
    this.#open = undefined;
    return [event({ type: 'content_block_stop', index: this.#blocks++ })];
  }
}

function event(data: { type: string; [field: string]: unknown }): ServerEvent {
  return jsonEvent(data, data.type);
}
