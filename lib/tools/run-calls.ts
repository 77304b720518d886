import { eitherSignal, orAborted, throwIfAborted } from '../abort.js';
import { publish } from '../diagnostics/events.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import { beginningOf, type ToolCall } from '../prompt/messages.js';
import type { ToolSession, ToolSet } from './tool.js';
import { approved, type ToolCallHook } from './tool-call-hook.js';

export interface ToolLimits {
  /** Maximum number of calls of one reply that run at the same time. */
  maxParallelTools: number;
  /** Time limit of one call, in ms. */
  toolTimeoutMs: number;
  /** Maximum length of a result for the model, in characters. Longer results are cut. */
  maxToolResultLength: number;
}

export interface ToolRun extends ToolLimits {
  /** The id of the turn, for published events. */
  turnId: string;
  tools: ToolSet;
  session: ToolSession;
  hook: ToolCallHook | undefined;
  /** Aborts the calls, for example when the turn is aborted. */
  signal: AbortSignal;
}

/** The result of one call. */
export interface ToolOutcome {
  /** The call, with the arguments that the tool received. */
  call: ToolCall;
  output: unknown;
  isError: boolean;
  /** The text for the model. */
  content: string;
}

/**
 * Runs the calls of one reply, at most `maxParallelTools` at a time. Yields the outcome of each call as soon as the
 * call ends. A call has an outcome even if its tool throws or hangs, or if its arguments are wrong. Leaving the
 * generator early aborts the running calls.
 *
 * @throws HeadstartError `ABORTED` as soon as the signal fires, without waiting for the tools.
 */
export async function* runCalls(
  calls: readonly ToolCall[],
  run: ToolRun,
): AsyncGenerator<ToolOutcome, void, undefined> {
  const waiting = [...calls];
  const running = new Map<ToolCall, Promise<ToolOutcome>>();
  const readerLeft = new AbortController();
  const innerRun: ToolRun = { ...run, signal: eitherSignal(run.signal, readerLeft.signal) };
  try {
    while (waiting.length > 0 || running.size > 0) {
      throwIfAborted(run.signal);
      while (waiting.length > 0 && running.size < run.maxParallelTools) {
        const call = waiting.shift() as ToolCall;
        running.set(call, runCall(call, innerRun));
      }
      const outcomes = [...running].map(([call, outcome]) => outcome.then((done) => ({ call, done })));
      const outcome = await orAborted(Promise.race(outcomes), run.signal);
      running.delete(outcome.call);
      yield outcome.done;
    }
  } finally {
    if (running.size > 0) {
      readerLeft.abort(); // the reader has left, so nothing needs the outcomes of the running calls
    }
  }
}

async function runCall(call: ToolCall, run: ToolRun): Promise<ToolOutcome> {
  const begin = performance.now();
  const { toolCallId, toolName: name } = call;
  const about = { turnId: run.turnId, sessionId: run.session.id, toolCallId, name };
  publish('tool-call', { event: 'start', ...about });
  const outcome = await runLimited(call, run);
  publish('tool-call', { event: 'end', ...about, ms: performance.now() - begin, isError: outcome.isError });
  return outcome;
}

/** Runs a call within its time limit. Never rejects. */
async function runLimited(call: ToolCall, run: ToolRun): Promise<ToolOutcome> {
  const limit = new TimeLimit(run.toolTimeoutMs);
  const signal = eitherSignal(run.signal, limit.signal);
  let approvedCall = call;
  const attempt = async () => {
    approvedCall = await approved(call, run.hook, { signal, session: run.session });
    limit.start();
    return execute(approvedCall, run, signal);
  };
  try {
    const output = await orAborted(attempt(), signal);
    return { call: approvedCall, output, isError: false, content: contentOf(output, run.maxToolResultLength) };
  } catch (error) {
    const isTimedOut = limit.signal.aborted && !run.signal.aborted;
    const message = isTimedOut ? `The tool did not answer within ${run.toolTimeoutMs} ms` : messageOf(error);
    const content = contentOf({ error: message }, run.maxToolResultLength);
    return { call: approvedCall, output: message, isError: true, content };
  } finally {
    limit.stop();
  }
}

async function execute({ toolCallId, toolName, input }: ToolCall, run: ToolRun, signal: AbortSignal): Promise<unknown> {
  const prepared = run.tools.get(toolName);
  if (prepared?.tool.execute === undefined) {
    throw new Error(`There is no tool "${toolName}"`);
  }
  const copy = structuredClone(input); // the tool may change its copy, and the conversation keeps the original
  const parse = async () => {
    if (typeof copy === 'string') {
      requireExactIntegers(copy); // arguments stay text if JavaScript would round one of their integers
    }
    return prepared.schema.parse(copy);
  };
  const args = await parse().catch((error: unknown) => {
    throw new Error(`The arguments do not fit the tool's parameters: ${messageOf(error)}`);
  });
  throwIfAborted(signal);
  return prepared.tool.execute(args, { signal, session: run.session, toolCallId });
}

/**
 * The time limit of one call. The timer keeps the process alive: without it, a hanging tool could let the process exit.
 */
class TimeLimit {
  readonly #ms: number;
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** Fires when the time limit is reached. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  start(): void {
    const reason = new DOMException('The tool call reached its time limit', 'TimeoutError');
    this.#timer = setTimeout(() => this.#controller.abort(reason), this.#ms);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/**
 * The result as text for the model, cut to `limit` characters. A note with the number of removed characters follows.
 */
function contentOf(output: unknown, limit: number): string {
  let text: string;
  try {
    text = typeof output === 'string' ? output : (JSON.stringify(output) ?? 'null');
  } catch (error) {
    text = JSON.stringify({ error: `The result of the tool is not JSON data: ${messageOf(error)}` });
  }
  if (text.length <= limit) {
    return text;
  }
  const kept = beginningOf(text, limit);
  return `${kept}\n[cut: ${text.length - kept.length} more characters]`;
}

function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'the tool failed'; // the thrown value cannot be converted to a string
  }
}
