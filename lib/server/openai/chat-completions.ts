// OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat
import { randomUUID } from 'node:crypto';
import type { ChatModel } from '../../chat/chat-model.js';
import type {
  FinishPart,
  FinishReason,
  Reply,
  StreamPart,
  TokenLogProbabilities,
} from '../../generate/stream-parts.js';
import type { ToolCall } from '../../prompt/messages.js';
import type { Usage } from '../../usage.js';
import type { ReadReplyRequest } from '../handler.js';
import { clientRequest } from '../http/client-request.js';
import type { HttpError } from '../http/http-error.js';
import {
  type FinishedReply,
  headstartOf,
  jsonEvent,
  type ReplyEvents,
  type ServerEvent,
} from '../http/reply-events.js';
import { promptProgress, timingsOf } from '../llama-server/timings.js';
import { type ChatCompletionBody, chatRequestOf, readChatBody } from './chat-request.js';
import { openAiError } from './error.js';
import { withSeedOf } from './sampling.js';

export const readChatCompletion: ReadReplyRequest = (input, details) => {
  const body = readChatBody(input);
  const { request, rules } = clientRequest(chatRequestOf(body), details);
  const choices = Array.from({ length: body.n ?? 1 }, (_, index) => withSeedOf(request, index));
  const envelope = new Envelope(details.model, rules);
  return {
    choices,
    events: body.stream ? new ChatCompletionEvents(envelope, body, choices.length) : undefined,
    body: (replies) => envelope.completion(replies),
  };
};

/** The fields that all objects of one response have. */
class Envelope {
  readonly #fields: { id: string; created: number; model: string };
  /** The names of the rules that changed the request. */
  readonly #rules: readonly string[];

  constructor({ id: model }: ChatModel, rules: readonly string[]) {
    this.#rules = rules;
    this.#fields = { id: `chatcmpl-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model };
  }

  completion(replies: readonly Reply[]): object {
    return {
      ...this.#fields,
      object: 'chat.completion',
      choices: replies.map(choiceOf),
      ...this.ending(replies),
    };
  }

  ending(replies: readonly FinishedReply[]): object {
    return endingOf(replies, { rules: this.#rules });
  }

  chunk(more: object): ServerEvent {
    return jsonEvent({ ...this.#fields, object: 'chat.completion.chunk', ...more });
  }
}

function choiceOf(reply: Reply, index: number): object {
  const { text, reasoning, toolCalls, finishReason, logProbabilities } = reply;
  const calls = toolCalls.map(callOf);
  return {
    index,
    message: {
      role: 'assistant',
      content: text === '' && calls.length > 0 ? null : text,
      refusal: null,
      ...(reasoning !== '' && { reasoning_content: reasoning }),
      ...(calls.length > 0 && { tool_calls: calls }),
    },
    logprobs: logProbabilities === undefined ? null : logProbabilitiesOf(logProbabilities),
    finish_reason: finishReasonOf(finishReason),
  };
}

function callOf({ toolCallId, toolName, input }: ToolCall): object {
  const text = typeof input === 'string' ? input : JSON.stringify(input);
  return { id: toolCallId, type: 'function', function: { name: toolName, arguments: text } };
}

export function finishReasonOf(reason: FinishReason): string {
  return reason === 'tool-calls' ? 'tool_calls' : reason === 'length' ? 'length' : 'stop';
}

/**
 * The numbers at the end of a response: the usage of all choices together, and the timings and the cache report of the
 * first reply.
 *
 * @param details.choicesPerPrompt by default all choices have the same prompt
 * @param details.rules the names of the rules that changed the request
 */
export function endingOf(
  replies: readonly FinishedReply[],
  { choicesPerPrompt = replies.length, rules = [] }: { choicesPerPrompt?: number; rules?: readonly string[] } = {},
): object {
  const [first] = replies as [FinishedReply];
  const usage = usageOf(replies, choicesPerPrompt);
  return { usage, timings: timingsOf(first), headstart: headstartOf(first, rules) };
}

/** The usage of all choices together. A prompt counts once, even if it has several choices. */
function usageOf(replies: readonly { usage: Usage }[], choicesPerPrompt: number): object {
  const prompts = replies.filter((_, index) => index % choicesPerPrompt === 0);
  const sum = (field: keyof Usage, of = replies) => of.reduce((total, { usage }) => total + usage[field], 0);
  const prompt = sum('inputTokens', prompts);
  const completion = sum('outputTokens');
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum('cachedInputTokens', prompts) },
    completion_tokens_details: { reasoning_tokens: sum('reasoningTokens') },
  };
}

function logProbabilitiesOf(tokens: readonly TokenLogProbabilities[]): object {
  const entry = ({ text, logProbability }: { text: string; logProbability: number }) => ({
    token: text,
    logprob: Math.max(logProbability, -9999),
    bytes: [...Buffer.from(text)],
  });
  return { content: tokens.map(({ likely, ...token }) => ({ ...entry(token), top_logprobs: likely.map(entry) })) };
}

/** A delta without content. */
const EMPTY = { role: 'assistant', content: '' };

/** Writes the chunks of a streamed chat completion. */
class ChatCompletionEvents implements ReplyEvents {
  readonly progress: ReplyEvents['progress'];
  readonly #envelope: Envelope;
  readonly #includesUsage: boolean;
  readonly #choices: number;
  /** For each choice: the indices of its calls by their ids. */
  readonly #calls = new Map<number, Map<string, number>>();
  /** The last parts of the choices. */
  readonly #finished: FinishPart[] = [];

  constructor(
    envelope: Envelope,
    { stream_options: options, return_progress: progress }: ChatCompletionBody,
    n: number,
  ) {
    this.#envelope = envelope;
    this.#includesUsage = options?.include_usage ?? false;
    this.#choices = n;
    this.progress = progress ? (each, choice) => [this.#delta(choice, EMPTY, promptProgress(each))] : undefined;
  }

  begin(): ServerEvent[] {
    return Array.from({ length: this.#choices }, (_, choice) => this.#delta(choice, EMPTY));
  }

  keepAlive(): ServerEvent[] {
    return [this.#delta(0, EMPTY)];
  }

  part(part: StreamPart, choice: number): ServerEvent[] {
    switch (part.type) {
      case 'text-delta':
        return [this.#delta(choice, { content: part.text })];
      case 'reasoning-delta':
        return [this.#delta(choice, { reasoning_content: part.text })];
      case 'tool-input-start':
        return [this.#beginCall(choice, part.toolCallId, part.toolName)];
      case 'tool-input-delta':
        return [this.#continueCall(choice, part.toolCallId, part.delta)];
      case 'finish':
        return [this.#finish(choice, part)];
      default:
        return [];
    }
  }

  end(): ServerEvent[] {
    const usage = { choices: [], ...this.#envelope.ending(this.#finished) };
    return [...(this.#includesUsage ? [this.#envelope.chunk(usage)] : []), { data: '[DONE]' }];
  }

  fail(error: HttpError): ServerEvent[] {
    return [jsonEvent(openAiError(error))];
  }

  #beginCall(choice: number, id: string, name: string): ServerEvent {
    const calls = this.#calls.get(choice) ?? new Map<string, number>();
    this.#calls.set(choice, calls);
    const index = calls.size;
    calls.set(id, index);
    return this.#delta(choice, { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] });
  }

  #continueCall(choice: number, id: string, text: string): ServerEvent {
    const index = this.#calls.get(choice)?.get(id);
    return this.#delta(choice, { tool_calls: [{ index, function: { arguments: text } }] });
  }

  #finish(choice: number, part: FinishPart): ServerEvent {
    this.#finished[choice] = part;
    const { finishReason, logProbabilities } = part;
    const logprobs = logProbabilities === undefined ? null : logProbabilitiesOf(logProbabilities);
    const last = { index: choice, delta: {}, logprobs, finish_reason: finishReasonOf(finishReason) };
    return this.#envelope.chunk({ choices: [last], timings: timingsOf(part) });
  }

  #delta(index: number, delta: object, more?: object): ServerEvent {
    return this.#envelope.chunk({ choices: [{ index, delta, logprobs: null, finish_reason: null }], ...more });
  }
}
