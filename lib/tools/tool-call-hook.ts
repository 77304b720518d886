// Asks the program's `onToolCall` hook before a tool runs.
import { throwIfAborted } from '../abort.js';
import { describe } from '../options.js';
import { inputFrom, type ToolCall } from '../prompt/messages.js';
import type { ToolSession } from './tool.js';

/**
 * The value that a {@link ToolCallHook} returns. `true` or `undefined` lets the call run. `{ input }` runs the call
 * with other arguments. `false`, `{ refuse }` or any other value refuses the call, and the model gets an error as the
 * result of the call.
 */
export type ToolCallDecision =
  | boolean
  | undefined
  | {
      /** The reason, for the model. */
      refuse: string;
    }
  | {
      /** JSON data. These arguments replace the model's arguments, even in the conversation. */
      input: unknown;
    };

/**
 * Called before a tool runs. The arguments have not been checked yet. The time limit of the tool starts when the hook
 * has returned. Until then, only the time limit of the turn applies.
 */
export type ToolCallHook = (
  call: ToolCall,
  context: { signal: AbortSignal; session: ToolSession },
) => ToolCallDecision | Promise<ToolCallDecision>;

/**
 * Asks the hook if there is one.
 *
 * @returns the call to run, with the hook's arguments if the hook returned `{ input }`
 * @throws Error with the reason if the call is refused, and any error of the hook
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
  throwIfAborted(context.signal); // the turn may have been aborted during the call of the hook
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
      return Object.freeze({ ...call, input: copyOf(decision.input) });
    }
  }
  throw new Error(
    `Expected \`onToolCall\` to return true, false, { refuse } or { input }, got ${describe(decision)}: ` +
      'the call did not run',
  );
}

/** Copies the arguments: the conversation keeps them, and the hook may change its own object later. */
function copyOf(input: unknown): unknown {
  try {
    return inputFrom(JSON.stringify(input));
  } catch (cause) {
    throw new Error(`Expected \`input\` from \`onToolCall\` to be JSON data, got ${describe(input)}`, { cause });
  }
}
