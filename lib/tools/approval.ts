// What the program says to a call before it runs.
import { throwIfAborted } from '../abort.js';
import { describe } from '../options.js';
import { inputFrom, type ToolCall } from '../prompt/messages.js';
import type { ToolSession } from './tool.js';

/**
 * What is to become of a call: `true` or nothing lets it run; `false` or a reason refuses it, and the model is told so;
 * `input` runs it with other arguments. Anything else refuses it too.
 */
export type ToolCallDecision =
  | boolean
  | undefined
  | {
      /** Why not: the model is told. */
      refuse: string;
    }
  | {
      /** The arguments to use instead, JSON data: the conversation says that these were called for. */
      input: unknown;
    };

/**
 * Asked before a tool runs, with arguments that were not checked yet. It may take its time, as long as the turn has; the tool's
 * begins behind it.
 */
export type ToolCallHook = (
  call: ToolCall,
  context: { signal: AbortSignal; session: ToolSession },
) => ToolCallDecision | Promise<ToolCallDecision>;

/**
 * Asks the hook, where there is one.
 *
 * @returns the call as it is to run
 * @throws what says why it is not to
 */
export async function approved(
  call: ToolCall,
  hook: ToolCallHook | undefined,
  context: { signal: AbortSignal; session: ToolSession },
): Promise<ToolCall> {
  if (hook === undefined) {
    return call;
  }
  const decision: unknown = await hook(call, context);
  throwIfAborted(context.signal); // too late: nobody waits for the call any more
  if (decision === true || decision === undefined || decision === null) {
    return call;
  }
  if (decision === false) {
    throw new Error('The call was refused');
  }
  if (typeof decision === 'object') {
    if ('refuse' in decision) {
      throw new Error(`Refused: ${decision.refuse}`);
    }
    if ('input' in decision) {
      return Object.freeze({ ...call, input: otherInput(decision.input) });
    }
  }
  throw new Error(
    `Expected the hook to say true, false, { refuse } or { input }, got ${describe(decision)}: the call did not run`,
  );
}

/** A copy: what the conversation says of a call does not change afterwards. */
function otherInput(input: unknown): unknown {
  try {
    return inputFrom(JSON.stringify(input));
  } catch (cause) {
    throw new Error(`Expected the hook's \`input\` to be JSON data, got ${describe(input)}`, { cause });
  }
}
