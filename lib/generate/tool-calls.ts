import type { ReplyToolCall } from '../native/reply.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import { type ChatMessage, callsOf, inputFrom, PORTABLE_CALL_ID, type ToolCall } from '../prompt/messages.js';

/**
 * Assigns ids to tool calls. Each id is unique in its conversation. An id that the model wrote is used if every chat
 * template accepts it. Other calls get a number, so that the same conversation always renders the same prompt.
 */
export class CallIds {
  readonly #taken: Set<string>;
  #count: number;

  /** @param before the conversation so far */
  constructor(before: readonly ChatMessage[]) {
    const calls = before.flatMap(callsOf);
    this.#taken = new Set(calls.map((call) => call.toolCallId));
    this.#count = this.#taken.size;
  }

  /** @param written the id that the model wrote. Empty if the model wrote no id. */
  next(written: string): string {
    let id = written;
    while (!PORTABLE_CALL_ID.test(id) || this.#taken.has(id)) {
      id = callId(this.#count++);
    }
    this.#taken.add(id);
    return id;
  }
}

/** The id of the call with this number, in the form that every chat template accepts. */
export function callId(number: number): string {
  return `call${number.toString(36).padStart(5, '0')}`;
}

/** The JSON text of a call's arguments. If the model wrote no text, the call has no arguments. */
export function argumentsText({ arguments: json }: Pick<ReplyToolCall, 'arguments'>): string {
  return json.trim() === '' ? '{}' : json;
}

/** The call in the form that programs receive. */
export function toToolCall(toolCallId: string, written: ReplyToolCall): ToolCall {
  return { toolCallId, toolName: written.name, input: parseArguments(argumentsText(written)) };
}

/**
 * Parses arguments. Text that is invalid JSON, or contains an integer that JavaScript would round, stays a string. No
 * tool's schema accepts a string, and the model receives the reason as the result of the call.
 */
export function parseArguments(json: string): unknown {
  try {
    requireExactIntegers(json);
    return inputFrom(json);
  } catch {
    return json;
  }
}
