// Tests that events become spans of a real OpenTelemetry tracer.
import { SpanStatusCode, trace } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { subscribeDiagnostics } from 'llama-headstart';
import { publish, startTelemetry } from 'llama-headstart/internal';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';

const exporter = new InMemorySpanExporter();

beforeAll(async () => {
  await startTelemetry();
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
});
afterAll(() => trace.disable());
beforeEach(() => exporter.reset());

const turn = { turnId: 't', sessionId: 's' };
const usage = { inputTokens: 30, cachedInputTokens: 20, outputTokens: 5, reasoningTokens: 0 };

it('a turn with a tool call becomes a span with the span of the call inside it', () => {
  publish('turn', { event: 'start', ...turn, model: '/home/ada/models/tiny.gguf' });
  publish('tool-call', { event: 'start', ...turn, toolCallId: 'c', name: 'add' });
  publish('tool-call', { event: 'end', ...turn, toolCallId: 'c', name: 'add', ms: 1, isError: false });
  publish('turn', { event: 'end', ...turn, ms: 2, finishReason: 'stop', usage });
  const [call, chat] = exporter.getFinishedSpans();
  expect(chat?.name).toBe('chat tiny');
  expect(chat?.attributes).toEqual({
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'llama_cpp',
    'gen_ai.request.model': 'tiny',
    'gen_ai.conversation.id': 's',
    'gen_ai.usage.input_tokens': 30,
    'gen_ai.usage.cache_read.input_tokens': 20,
    'gen_ai.usage.output_tokens': 5,
    'gen_ai.response.finish_reasons': ['stop'],
  });
  expect(call?.name).toBe('execute_tool add');
  expect(call?.parentSpanContext?.spanId).toBe(chat?.spanContext().spanId);
  expect(call?.status.code).toBe(SpanStatusCode.UNSET);
});

it('the span of a failed turn has the status ERROR, and the message and the code of the error', () => {
  publish('turn', { event: 'start', ...turn, model: 'tiny' });
  publish('turn', { event: 'end', ...turn, ms: 2, error: Object.assign(new Error('full'), { code: 'CONTEXT_FULL' }) });
  const [chat] = exporter.getFinishedSpans();
  expect(chat?.status).toEqual({ code: SpanStatusCode.ERROR, message: 'full' });
  expect(chat?.attributes['error.type']).toBe('CONTEXT_FULL');
});

it('if an error has no code, `error.type` is the class of the error and does not contain its message', () => {
  publish('turn', { event: 'start', ...turn, model: 'tiny' });
  publish('turn', { event: 'end', ...turn, ms: 2, error: new TypeError('of request 4711') });
  const [chat] = exporter.getFinishedSpans();
  expect(chat?.attributes['error.type']).toBe('TypeError');
  expect(chat?.status.message).toBe('of request 4711');
});

it('telemetry that was started twice still publishes each span once', async () => {
  await Promise.all([startTelemetry(), startTelemetry()]);
  publish('turn', { event: 'start', ...turn, model: 'tiny' });
  publish('turn', { event: 'end', ...turn, ms: 2, finishReason: 'stop', usage });
  expect(exporter.getFinishedSpans()).toHaveLength(1);
});

it('a subscriber gets events of a diagnostics channel until it unsubscribes', () => {
  const seen: unknown[] = [];
  const unsubscribe = subscribeDiagnostics('decode', (event) => seen.push(event));
  const event = { sequences: 2, tokens: 2, promptTokens: 0, waiting: 0, ms: 7 };
  publish('decode', event);
  unsubscribe();
  publish('decode', { ...event, sequences: 3 });
  expect(seen).toEqual([event]);
});
