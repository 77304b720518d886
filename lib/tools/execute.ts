import { eitherSignal, orAborted, throwIfAborted } from '../abort.js';
import { publish } from '../diagnostics/events.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import { beginningOf, type ToolCall } from '../prompt/messages.js';
import { approved, type ToolCallHook } from './approval.js';
import type { ToolSession, ToolSet } from './tool.js';

export interface ToolLimits {
  /** Calls of one reply that run at the same time. */
  maxParallelTools: number;
  /** How long one call may run, ms. */
  toolTimeoutMs: number;
  /** Longer results are cut, in characters. */
  maxToolResultLength: number;
}

export interface ToolRun extends ToolLimits {
  /** For observers. */
  turnId: string;
  tools: ToolSet;
  session: ToolSession;
  hook: ToolCallHook | undefined;
  /** Ends the turn. */
  signal: AbortSignal;
}

/** How a call went. */
export interface ToolOutcome {
  /** With the arguments it ran with. */
  call: ToolCall;
  output: unknown;
  isError: boolean;
  /** What the model is told. */
  content: string;
}

/**
 * Runs the calls of one reply, `maxParallelTools` at a time, and yields their outcomes as they come. A tool that throws,
 * hangs or gets wrong arguments is an outcome too. Who leaves before the last one ends what runs.
 *
 * @throws HeadstartError `ABORTED` as soon as the signal fires, whatever the tools do then.
 */
export async function* runCalls(
  calls: readonly ToolCall[],
  run: ToolRun,
): AsyncGenerator<ToolOutcome, void, undefined> {
  const waiting = [...calls];
  const running = new Map<ToolCall, Promise<ToolOutcome>>();
  const left = new AbortController();
  const within: ToolRun = { ...run, signal: eitherSignal(run.signal, left.signal) };
  try {
    while (waiting.length > 0 || running.size > 0) {
      throwIfAborted(run.signal);
      while (waiting.length > 0 && running.size < run.maxParallelTools) {
        const call = waiting.shift() as ToolCall;
        running.set(call, runCall(call, within));
      }
      const outcomes = [...running].map(([call, outcome]) => outcome.then((done) => ({ call, done })));
      const outcome = await orAborted(Promise.race(outcomes), run.signal);
      running.delete(outcome.call);
      yield outcome.done;
    }
  } finally {
    if (running.size > 0) {
      left.abort(); // nobody waits for them any more
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

/** Within its time; never rejects. */
async function runLimited(call: ToolCall, run: ToolRun): Promise<ToolOutcome> {
  const limit = new TimeLimit(run.toolTimeoutMs);
  const signal = eitherSignal(run.signal, limit.signal);
  let used = call;
  const attempt = async () => {
    used = await approved(call, run.hook, { signal, session: run.session });
    limit.start();
    return execute(used, run, signal);
  };
  try {
    const output = await orAborted(attempt(), signal);
    return { call: used, output, isError: false, content: told(output, run.maxToolResultLength) };
  } catch (error) {
    const isLate = limit.signal.aborted && !run.signal.aborted;
    const message = isLate ? `The tool did not answer within ${run.toolTimeoutMs} ms` : messageOf(error);
    return { call: used, output: message, isError: true, content: told({ error: message }, run.maxToolResultLength) };
  } finally {
    limit.stop();
  }
}

async function execute({ toolCallId, toolName, input }: ToolCall, run: ToolRun, signal: AbortSignal): Promise<unknown> {
  const found = run.tools.get(toolName);
  if (found?.tool.execute === undefined) {
    throw new Error(`There is no tool "${toolName}"`);
  }
  const own = structuredClone(input); // what the tool does to its arguments, the conversation does not say
  const parse = async () => {
    if (typeof own === 'string') {
      requireExactIntegers(own); // they may be why the arguments are a text
    }
    return found.schema.parse(own);
  };
  const args = await parse().catch((error: unknown) => {
    throw new Error(`The arguments do not fit the tool's parameters: ${messageOf(error)}`);
  });
  throwIfAborted(signal);
  return found.tool.execute(args, { signal, session: run.session, toolCallId });
}

/** Keeps the process alive: a tool that hangs may hold nothing that does. */
class TimeLimit {
  readonly #ms: number;
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** Fires when the time is over. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  start(): void {
    const reason = new DOMException('The time of the tool call is over', 'TimeoutError');
    this.#timer = setTimeout(() => this.#controller.abort(reason), this.#ms);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

/** @param limit in characters; what is cut off is said */
function told(output: unknown, limit: number): string {
  let text: string;
  try {
    text = typeof output === 'string' ? output : (JSON.stringify(output) ?? 'null');
  } catch (error) {
    text = JSON.stringify({ error: `The tool's result is no JSON data: ${messageOf(error)}` });
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
    return 'the tool failed'; // thrown was what cannot even be made a string
  }
}
