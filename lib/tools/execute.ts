import { publish } from '../diagnostics.js';
import { HeadstartError } from '../errors.js';
import { throwIfAborted } from '../native/addon.js';
import { eitherSignal } from '../native/signals.js';
import { describe } from '../options.js';
import type { ToolCall } from '../template/messages.js';
import type { ToolSession, ToolSet } from './tool.js';

/**
 * What is to become of a call: `true` or nothing lets it run; `false` or a reason refuses it, and the model is told so;
 * `input` runs it with other arguments.
 */
export type ToolCallDecision =
  | boolean
  | undefined
  | {
      /** Why not: the model is told. */
      refuse: string;
    }
  | {
      /** The arguments to use instead: the conversation says that these were called for. */
      input: unknown;
    };

/** Asked before a tool runs, with arguments that were not checked yet. */
export type ToolCallHook = (
  call: ToolCall,
  context: { signal: AbortSignal; session: ToolSession },
) => ToolCallDecision | Promise<ToolCallDecision>;

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
 * hangs or gets wrong arguments is an outcome too.
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
  const each: ToolRun = { ...run, signal: eitherSignal(run.signal, left.signal) };
  const aborted = onceAborted(run.signal);
  try {
    while (waiting.length > 0 || running.size > 0) {
      throwIfAborted(run.signal);
      while (waiting.length > 0 && running.size < run.maxParallelTools) {
        const call = waiting.shift() as ToolCall;
        running.set(call, runCall(call, each));
      }
      const outcome = await Promise.race([
        aborted.promise,
        ...[...running].map(([call, outcome]) => outcome.then((done) => ({ call, done }))),
      ]);
      running.delete(outcome.call);
      yield outcome.done;
    }
  } finally {
    aborted.stop();
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
  const timeout = AbortSignal.timeout(run.toolTimeoutMs);
  const signal = eitherSignal(run.signal, timeout);
  const late = onceAborted(signal);
  let used = call;
  const onChanged = (changed: ToolCall) => {
    used = changed;
  };
  try {
    const output = await Promise.race([late.promise, attempt(call, run, signal, onChanged)]);
    return { call: used, output, isError: false, content: told(output, run.maxToolResultLength) };
  } catch (error) {
    const isLate = timeout.aborted && !run.signal.aborted;
    const message = isLate ? `The tool did not answer within ${run.toolTimeoutMs} ms` : messageOf(error);
    return { call: used, output: message, isError: true, content: told({ error: message }, run.maxToolResultLength) };
  } finally {
    late.stop();
  }
}

async function attempt(
  call: ToolCall,
  run: ToolRun,
  signal: AbortSignal,
  onChanged: (call: ToolCall) => void,
): Promise<unknown> {
  const { session } = run;
  let { input } = call;
  const decision = (await run.hook?.(call, { signal, session })) ?? true;
  if (decision === false || (typeof decision === 'object' && 'refuse' in decision)) {
    throw new Error(typeof decision === 'object' ? `Refused: ${decision.refuse}` : 'The call was refused');
  }
  if (typeof decision === 'object') {
    input = jsonCopy(decision.input);
    onChanged({ ...call, input });
  }
  const found = run.tools.get(call.toolName);
  if (found?.tool.execute === undefined) {
    throw new Error(`There is no tool "${call.toolName}"`);
  }
  const own = structuredClone(input); // what the tool does to its arguments, the conversation does not say
  const args = await found.parameters.parse(own).catch((error: unknown) => {
    throw new Error(`The arguments do not fit the tool's parameters: ${messageOf(error)}`);
  });
  return found.tool.execute(args, { signal, session, toolCallId: call.toolCallId });
}

/** @throws Error that says what is wrong with arguments that a hook gave. */
function jsonCopy(input: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(input) as string);
  } catch (cause) {
    throw new Error(`Expected \`input\` of the hook's decision to be JSON data, got ${describe(input)}`, { cause });
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
  return text.length <= limit ? text : `${text.slice(0, limit)}\n[cut: ${text.length - limit} more characters]`;
}

function messageOf(error: unknown): string {
  try {
    return error instanceof Error ? error.message : String(error);
  } catch {
    return 'the tool failed'; // thrown was what cannot even be made a string
  }
}

/** A promise that rejects when the signal fires; `stop` lets go of it. */
function onceAborted(signal: AbortSignal): { promise: Promise<never>; stop: () => void } {
  let stop = () => {};
  const promise = new Promise<never>((_, reject) => {
    const fail = () => reject(new HeadstartError('ABORTED', 'The tool call was aborted', { cause: signal.reason }));
    if (signal.aborted) {
      fail();
    } else {
      signal.addEventListener('abort', fail, { once: true });
      stop = () => signal.removeEventListener('abort', fail);
    }
  });
  promise.catch(() => undefined);
  return { promise, stop };
}
