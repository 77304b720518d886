// Writes a response: as an object, or as events.
import { randomUUID } from 'node:crypto';
import type { FinishPart, Reply, StreamPart } from '../../generate/stream-parts.js';
import type { Usage } from '../../usage.js';
import type { HttpError } from '../http/http-error.js';
import { headstartOf, jsonEvent, type ReplyEvents, type ServerEvent } from '../http/reply-events.js';
import { promptProgress } from '../llama-server/timings.js';
import type { Item } from './items.js';
import { OutputItems } from './output-items.js';
import type { ResponseBody } from './response-request.js';
import type { ResponseTools } from './response-tools.js';

export interface ResponseContents {
  body: ResponseBody;
  tools: ResponseTools;
  /** Sentences about parts of the request that the model does not see. */
  warnings: readonly string[];
  /** The names of the rules that changed the request. */
  rules: readonly string[];
  /** The name of the model. */
  model: string;
  /** Called with the finished response and the items of its output. */
  onResponse(id: string, response: Item, output: readonly Item[]): void;
}

/** Writes one response. A response that is written at once consists of the items that its stream would have. */
export class ResponseWriter implements ReplyEvents {
  readonly progress: ReplyEvents['progress'];
  readonly #contents: ResponseContents;
  /** The part of the ids of the response and its items that is unique. */
  readonly #id = randomUUID().replaceAll('-', '');
  readonly #createdAt = seconds();
  readonly #output: OutputItems;
  #sequence = 0;
  #finish: FinishPart | undefined;

  constructor(contents: ResponseContents) {
    this.#contents = contents;
    const encodesReasoning = contents.body.include?.includes('reasoning.encrypted_content') ?? false;
    const inProgress = (more?: object) =>
      this.#responseEvent('response.in_progress', this.#unfinished('in_progress'), more);
    this.progress = contents.body.return_progress ? (each) => [inProgress(promptProgress(each))] : undefined;
    const event = (type: string, fields: object) => this.#event(type, fields);
    this.#output = new OutputItems(this.#id, contents.tools, event, encodesReasoning);
  }

  /** @param reply undefined for a request that the model does not answer */
  whole(reply: Reply | undefined): object {
    for (const part of reply === undefined ? [] : partsOf(reply)) {
      this.part(part);
    }
    return this.#end().response;
  }

  begin(): ServerEvent[] {
    return [this.#responseEvent('response.created', this.#unfinished('in_progress')), ...this.keepAlive()];
  }

  keepAlive(): ServerEvent[] {
    return [this.#responseEvent('response.in_progress', this.#unfinished('in_progress'))];
  }

  part(part: StreamPart): ServerEvent[] {
    if (part.type === 'finish') {
      this.#finish = part;
    }
    return this.#output.add(part);
  }

  end(): ServerEvent[] {
    const { events, response } = this.#end();
    return [...events, this.#responseEvent(`response.${response.status}`, response)];
  }

  fail({ status, code, message }: HttpError): ServerEvent[] {
    const error = { code: status >= 500 ? 'server_error' : code, message };
    return [this.#responseEvent('response.failed', { ...this.#unfinished('failed'), error })];
  }

  #end(): { events: ServerEvent[]; response: Item } {
    const isCut = ['length', 'aborted'].includes(this.#finish?.finishReason ?? '');
    const status = isCut ? 'incomplete' : 'completed';
    const events = this.#finish === undefined ? [] : this.#output.end(status);
    const output = this.#output.finished;
    const { warnings, rules } = this.#contents;
    const response = {
      ...this.#unfinished(status),
      completed_at: isCut ? null : seconds(),
      incomplete_details: isCut ? { reason: 'max_output_tokens' } : null,
      output,
      usage: usageOf(this.#finish?.usage),
      headstart: { ...(this.#finish && headstartOf(this.#finish, rules)), ...(warnings.length > 0 && { warnings }) },
    };
    if (this.#finish !== undefined) {
      this.#contents.onResponse(this.#id, response, output);
    }
    return { events, response };
  }

  /** The response without output. */
  #unfinished(status: string): Item {
    const { body, model } = this.#contents;
    return {
      id: `resp_${this.#id}`,
      object: 'response',
      created_at: this.#createdAt,
      status,
      background: false,
      error: null,
      incomplete_details: null,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      metadata: body.metadata ?? {},
      model,
      output: [],
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: body.previous_response_id ?? null,
      prompt_cache_key: body.prompt_cache_key ?? null,
      reasoning: { effort: null, summary: null, ...body.reasoning },
      store: body.store ?? true,
      temperature: body.temperature ?? null,
      text: { format: { type: 'text' }, ...body.text },
      tool_choice: body.tool_choice ?? 'auto',
      tools: body.tools ?? [],
      top_p: body.top_p ?? null,
      truncation: 'disabled',
      usage: null,
    };
  }

  #responseEvent(type: string, response: object, more?: object): ServerEvent {
    return this.#event(type, { response, ...more });
  }

  #event(type: string, fields: object): ServerEvent {
    return jsonEvent({ type, sequence_number: this.#sequence++, ...fields }, type);
  }
}

/** The parts that a stream of this reply would have. */
function partsOf({ text, reasoning, toolCalls, ...end }: Reply): StreamPart[] {
  return [
    ...(reasoning === '' ? [] : [{ type: 'reasoning-delta' as const, text: reasoning }]),
    ...(text === '' ? [] : [{ type: 'text-delta' as const, text }]),
    ...toolCalls.flatMap((call): StreamPart[] => {
      const { toolCallId, toolName, input } = call;
      const delta = typeof input === 'string' ? input : JSON.stringify(input);
      return [
        { type: 'tool-input-start', toolCallId, toolName },
        { type: 'tool-input-delta', toolCallId, delta },
        { type: 'tool-call', ...call },
      ];
    }),
    { type: 'finish', ...end },
  ];
}

function usageOf(usage: Usage | undefined): object {
  const { inputTokens = 0, cachedInputTokens = 0, outputTokens = 0, reasoningTokens = 0 } = usage ?? {};
  return {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: cachedInputTokens },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: reasoningTokens },
    total_tokens: inputTokens + outputTokens,
  };
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}
