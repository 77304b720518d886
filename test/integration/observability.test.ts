// Tests the events, the spans of a real tracer, and the log lines of real sessions.
import { trace } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { type DiagnosticsEvents, type LogLevel, subscribeDiagnostics } from 'llama-headstart';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type AgentSettings, startAgent } from '../helpers/agents.js';

const tools = [
  {
    name: 'look_up',
    description: 'Looks something up',
    parameters: { type: 'object', properties: { word: { type: 'string', maxLength: 8 } }, required: ['word'] },
    execute: () => {
      throw new Error('the index is gone');
    },
  },
];
// With greedy sampling, a model with random weights may write spaces forever.
const sampling = { temperature: 1, seed: 1 };
const oneCall = { toolChoice: 'required', maxSteps: 1, maxParallelTools: 1, maxTokens: 400, sampling } as const;

function record<Name extends keyof DiagnosticsEvents>(name: Name): DiagnosticsEvents[Name][] {
  const events: DiagnosticsEvents[Name][] = [];
  onTestFinished(subscribeDiagnostics(name, (event) => events.push(event)));
  return events;
}

describe('the diagnostics channels', () => {
  it('publish the start and end of sessions, turns and tool calls', async () => {
    const sessions = record('session');
    const turns = record('turn');
    const calls = record('tool-call');
    const agent = await startAgent({ tools });
    const session = await agent.createSession();
    const { toolResults, usage } = await session.send('Hello', oneCall);
    await expect(session.send('x', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    await session.close();
    const sessionId = session.id;
    expect(sessions).toEqual([
      { event: 'start', sessionId, report: session.report },
      { event: 'close', sessionId },
    ]);
    expect(turns.slice(0, 2)).toEqual([
      { event: 'start', turnId: expect.any(String), sessionId, model: expect.any(String) },
      expect.objectContaining({ event: 'end', turnId: turns[0]?.turnId, finishReason: 'tool-calls', usage }),
    ]);
    expect(turns.filter(({ event }) => event === 'start')).toHaveLength(turns.length / 2);
    const about = { turnId: turns[0]?.turnId, sessionId, toolCallId: toolResults[0]?.toolCallId, name: 'look_up' };
    expect(calls.slice(0, 2)).toEqual([
      { event: 'start', ...about },
      { event: 'end', ...about, ms: expect.any(Number), isError: true },
    ]);
  });

  it('refuse an unknown name, and a listener that is not a function', () => {
    const bad = [
      ['turns', () => {}],
      ['turn', 'log'],
      ['constructor', () => {}],
    ] as const;
    for (const [name, listener] of bad) {
      expect(() => subscribeDiagnostics(name as never, listener as never)).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('session, turn') }),
      );
    }
  });
});

describe('a logger that throws', () => {
  it('loses only its own lines, and causes one process warning', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    onTestFinished(() => warned.mockRestore());
    const logger = vi.fn(() => {
      throw new Error('the disk of the logs is full');
    });
    const agent = await startAgent({
      tools,
      debug: true,
      logger,
      mcpServers: [{ name: 'nowhere', command: '/no/such/program', required: false }],
    });
    const session = await agent.createSession();
    expect((await session.send('Hello', oneCall)).toolResults).toHaveLength(1);
    await agent.close();
    expect(logger.mock.calls.length).toBeGreaterThan(3);
    const codes = warned.mock.calls.map((call: unknown[]) => (call[1] as { code?: string } | undefined)?.code);
    expect(codes.filter((code) => code === 'LOGGER_THREW')).toHaveLength(1);
  });
});

describe('a logger', () => {
  /** Returns the levels of the lines that an agent logs if its MCP server writes a line and exits. */
  async function levels(settings: AgentSettings): Promise<LogLevel[]> {
    const seen: LogLevel[] = [];
    const server = { name: 'broken', command: process.execPath, args: ['-e', 'console.error("no configuration")'] };
    await startAgent({
      logger: (level) => seen.push(level),
      mcpServers: [{ ...server, required: false }],
      ...settings,
    });
    return seen;
  }

  it('gets warnings, and other levels only with `debug`', async () => {
    expect(new Set(await levels({}))).toEqual(new Set(['warn']));
    expect(new Set(await levels({ debug: true }))).toEqual(new Set(['warn', 'info', 'debug']));
  });

  it('defaults to standard error if `debug` is on', async () => {
    const written: string[] = [];
    const spy = vi.spyOn(process.stderr, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    onTestFinished(() => spy.mockRestore());
    const agent = await startAgent({ debug: true });
    const session = await agent.createSession();
    expect(written).toContainEqual(expect.stringMatching(`^debug: session ${session.id}: prefill \\(miss\\), .*\n$`));
    const { length } = written;
    await agent.close();
    await (await startAgent()).createSession();
    expect(written.slice(length).filter((line) => line.startsWith('debug: '))).toEqual([]);
  });
});

describe('OpenTelemetry spans', () => {
  it('of a turn have its usage, and are the parents of the spans of its tool calls', async () => {
    const exporter = new InMemorySpanExporter();
    trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
    onTestFinished(() => trace.disable());
    const agent = await startAgent({ tools });
    const session = await agent.createSession();
    const { usage } = await session.send('Hello', oneCall);
    const spans = exporter.getFinishedSpans();
    const turn = spans.find(({ name }) => name.startsWith('chat '));
    const call = spans.find(({ name }) => name === 'execute_tool look_up');
    expect(turn?.attributes).toMatchObject({
      'gen_ai.operation.name': 'chat',
      'gen_ai.conversation.id': session.id,
      'gen_ai.usage.input_tokens': usage.inputTokens,
      'gen_ai.usage.output_tokens': usage.outputTokens,
      'gen_ai.response.finish_reasons': ['tool-calls'],
    });
    expect(call?.parentSpanContext?.spanId).toBe(turn?.spanContext().spanId);
    expect(call?.attributes['error.type']).toBe('tool_error');
  });
});

describe('`debug`', () => {
  it('logs a line for each session, turn and tool call of its agent, and other agents log no such line', async () => {
    const lines: string[] = [];
    const quiet: string[] = [];
    const agent = await startAgent({
      tools,
      debug: true,
      logger: (level, line) => level === 'debug' && lines.push(line),
    });
    const other = await startAgent({ logger: (level, line) => level === 'debug' && quiet.push(line) });
    const session = await agent.createSession();
    await session.send('Hello', oneCall);
    await (await other.createSession()).send('Hello', { maxTokens: 2 });
    await agent.close();
    expect(lines.shift()).toMatch(
      `session ${session.id}: prefill (miss), 0 of ${session.report.templateTokens} template tokens cached, `,
    );
    expect(lines.pop()).toMatch(/turn tool-calls, \d+ prompt tokens \(\d+ cached\), \d+ generated, \d+ ms$/);
    expect(lines).not.toHaveLength(0);
    for (const line of lines) {
      expect(line).toMatch(/tool "look_up" failed, \d+ ms$/);
    }
    expect(quiet).toEqual([]);
  });
});
