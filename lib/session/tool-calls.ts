import type { ReplyToolCall } from '../native/reply.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import { type ChatMessage, inputFrom, type ToolCall } from '../prompt/messages.js';

/** What Mistral's chat templates demand, and all others take. */
const CALL_ID = /^[A-Za-z0-9]{9}$/;

/**
 * The calls of a reply, with ids that are unique in their conversation: the model's own where they will do, else counted,
 * so that the same conversation renders the same again.
 */
export function nextCallIds(before: readonly ChatMessage[], written: readonly ReplyToolCall[]): ToolCall[] {
  const taken = new Set(
    before
      .flatMap((message) => (message.role === 'assistant' ? (message.toolCalls ?? []) : []))
      .map((call) => call.toolCallId),
  );
  let count = taken.size;
  return written.map(({ id, name, arguments: json }) => {
    let toolCallId = id;
    while (!CALL_ID.test(toolCallId) || taken.has(toolCallId)) {
      toolCallId = `call${(count++).toString(36).padStart(5, '0')}`;
    }
    taken.add(toolCallId);
    return { toolCallId, toolName: name, input: parseArguments(json) };
  });
}

/** What is no JSON, or has integers that would be rounded, stays text: no tool's parameters fit it, and the model is told so. */
function parseArguments(json: string): unknown {
  if (json.trim() === '') {
    return {};
  }
  try {
    requireExactIntegers(json);
    return inputFrom(json);
  } catch {
    return json;
  }
}
