// Creates spans for turns and tool calls from the messages of our channels. The spans follow OpenTelemetry's
// conventions for generative AI. The spans need the package @opentelemetry/api, which does nothing until the program
// registers a tracer.
import { basename } from 'node:path';
import type { Span, Tracer } from '@opentelemetry/api';
import { subscribeDiagnostics, type ToolCallEvent, type TurnEvent } from './events.js';

type Api = typeof import('@opentelemetry/api');

/** The value of `gen_ai.provider.name`. The conventions are at https://opentelemetry.io/docs/specs/semconv/gen-ai/. */
const PROVIDER = 'llama_cpp';

let started: Promise<void> | undefined;

/** Begins to create spans. Idempotent, so that a process with several agents has one set of spans. */
export function startTelemetry(): Promise<void> {
  started ??= import('@opentelemetry/api').then(
    (api) => new SpanMaker(api).start(),
    () => undefined, // without the package there are no spans
  );
  return started;
}

class SpanMaker {
  readonly #api: Api;
  readonly #turns = new Map<string, Span>();
  readonly #calls = new Map<string, Span>();

  constructor(api: Api) {
    this.#api = api;
  }

  start(): void {
    subscribeDiagnostics('turn', (event) => this.#onTurn(event));
    subscribeDiagnostics('tool-call', (event) => this.#onToolCall(event));
  }

  /** The current tracer. Get it for each span, because the program may register a tracer later. */
  get #tracer(): Tracer {
    return this.#api.trace.getTracer('llama-headstart');
  }

  #onTurn(event: TurnEvent): void {
    const { turnId, sessionId } = event;
    if (event.event === 'start') {
      const model = basename(event.model, '.gguf');
      const span = this.#tracer.startSpan(`chat ${model}`, {
        kind: this.#api.SpanKind.INTERNAL,
        attributes: {
          'gen_ai.operation.name': 'chat',
          'gen_ai.provider.name': PROVIDER,
          'gen_ai.request.model': model,
          'gen_ai.conversation.id': sessionId,
        },
      });
      this.#turns.set(turnId, span);
      return;
    }
    const span = this.#turns.get(turnId);
    this.#turns.delete(turnId);
    if (event.usage !== undefined) {
      span?.setAttributes({
        'gen_ai.usage.input_tokens': event.usage.inputTokens,
        'gen_ai.usage.cache_read.input_tokens': event.usage.cachedInputTokens,
        'gen_ai.usage.output_tokens': event.usage.outputTokens,
      });
    }
    if (event.finishReason !== undefined) {
      span?.setAttribute('gen_ai.response.finish_reasons', [event.finishReason]);
    }
    this.#end(span, event.error);
  }

  #onToolCall(event: ToolCallEvent): void {
    const { turnId, toolCallId, name } = event;
    const id = `${turnId} ${toolCallId}`;
    if (event.event === 'start') {
      const { trace, context } = this.#api;
      const turn = this.#turns.get(turnId);
      const parent = turn === undefined ? context.active() : trace.setSpan(context.active(), turn);
      const attributes = {
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': name,
        'gen_ai.tool.call.id': toolCallId,
      };
      this.#calls.set(id, this.#tracer.startSpan(`execute_tool ${name}`, { attributes }, parent));
      return;
    }
    const span = this.#calls.get(id);
    this.#calls.delete(id);
    this.#end(span, event.isError ? 'tool_error' : undefined);
  }

  #end(span: Span | undefined, error: unknown): void {
    if (error !== undefined) {
      const { code, name, message } = error as { code?: unknown; name?: unknown; message?: unknown };
      span?.setAttribute('error.type', String(code ?? name ?? error));
      span?.setStatus({ code: this.#api.SpanStatusCode.ERROR, message: String(message ?? error) });
    }
    span?.end();
  }
}
