import { describe } from '../options.js';
import type { ChatMessage, ToolCall, ToolMessage } from '../prompt/messages.js';
import { invalidMessage, type MessageInput, readMessage } from './message-input.js';

/** What a turn begins with: the user's text, or messages, the last of them a user's or the results of tool calls. */
export type TurnInput = string | MessageInput | readonly MessageInput[];

/**
 * The messages of a turn, checked, copied and frozen.
 *
 * @param before the conversation so far
 * @throws HeadstartError `INVALID_ARGUMENT` with what is wrong where.
 */
export function readTurn(input: TurnInput, before: readonly ChatMessage[]): ChatMessage[] {
  const messages = readMessages(typeof input === 'string' ? [{ role: 'user', content: input }] : input);
  if (messages.length === 0 || messages.at(-1)?.role === 'assistant') {
    throw invalidMessage('Expected a turn to end with a user message or the results of tool calls');
  }
  requireAnswers([...before, ...messages]);
  return withToolNames(messages, before);
}

/** Messages to begin a conversation with: as {@link readTurn}, but it may be the model's word last, and calls may wait. */
export function readHistory(input: readonly MessageInput[]): ChatMessage[] {
  const messages = readMessages(input);
  requireAnswers(messages, true);
  return withToolNames(messages, []);
}

/** Calls of the newest reply that no result answers yet. */
export function pendingCalls(messages: readonly ChatMessage[]): readonly ToolCall[] {
  const answered = new Set<string>();
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index] as ChatMessage;
    if (message.role === 'tool') {
      answered.add(message.toolCallId);
    } else if (message.role === 'assistant') {
      return (message.toolCalls ?? []).filter(({ toolCallId }) => !answered.has(toolCallId));
    } else {
      return [];
    }
  }
  return [];
}

function readMessages(input: unknown): ChatMessage[] {
  return (Array.isArray(input) ? input : [input]).map((message, index) => {
    const where = Array.isArray(input) ? `message ${index}` : 'the message';
    return Object.freeze(readMessage(message, where));
  });
}

/** Every call is answered, once, before anybody else speaks, and nothing is answered that was not called. */
function requireAnswers(messages: readonly ChatMessage[], mayWait = false): void {
  let open = new Set<string>();
  for (const message of messages) {
    if (message.role === 'tool') {
      if (!open.delete(message.toolCallId)) {
        throw invalidMessage(
          `Expected a result for a call that waits for one, got one for ${describe(message.toolCallId)}`,
        );
      }
      continue;
    }
    requireNoneOpen(open);
    open = new Set();
    for (const { toolCallId } of message.role === 'assistant' ? (message.toolCalls ?? []) : []) {
      if (open.has(toolCallId)) {
        throw invalidMessage(
          `Expected the calls of a message to have ids of their own, got ${describe(toolCallId)} twice`,
        );
      }
      open.add(toolCallId);
    }
  }
  if (!mayWait) {
    requireNoneOpen(open);
  }
}

function requireNoneOpen(open: ReadonlySet<string>): void {
  if (open.size > 0) {
    throw invalidMessage(
      `Expected results for the tool calls ${[...open].map(describe).join(', ')} first: send { role: 'tool', toolCallId, content } for each`,
    );
  }
}

/** Chat templates may show the name of a result's tool: that of its call. */
function withToolNames(messages: readonly ChatMessage[], before: readonly ChatMessage[]): ChatMessage[] {
  const names = new Map<string, string>();
  for (const message of [...before, ...messages]) {
    for (const { toolCallId, toolName } of message.role === 'assistant' ? (message.toolCalls ?? []) : []) {
      names.set(toolCallId, toolName);
    }
  }
  return messages.map((message) => {
    const toolName =
      message.role === 'tool' && message.toolName === undefined ? names.get(message.toolCallId) : undefined;
    return toolName === undefined ? message : Object.freeze({ ...(message as ToolMessage), toolName });
  });
}
