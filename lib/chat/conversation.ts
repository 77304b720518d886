import { describe } from '../options.js';
import { type ChatMessage, callsOf, type ToolCall, type ToolMessage } from '../prompt/messages.js';
import { invalidMessage } from './invalid-message.js';
import type { ConversationMessage, MessageInput } from './message-input.js';
import { isSystemMessage, MessageReader } from './message-reader.js';

const reader = new MessageReader('strict');

/** The input of a turn: the user's text, or messages that end with a user message or with the result of a tool call. */
export type TurnInput = string | MessageInput | readonly MessageInput[];

/**
 * Returns the messages of a turn, checked, copied and frozen.
 *
 * @param history the conversation up to this turn
 * @throws HeadstartError `INVALID_ARGUMENT`. The error tells which message is wrong.
 */
export function readTurn(input: TurnInput, history: readonly ChatMessage[]): ChatMessage[] {
  const messages = readMessages(typeof input === 'string' ? [{ role: 'user', content: input }] : input);
  if (messages.length === 0 || messages.at(-1)?.role === 'assistant') {
    throw invalidMessage('Expected a turn to end with a user message or the results of tool calls');
  }
  requireResults([...history, ...messages]);
  return withToolNames(messages, history);
}

/** Messages with which a conversation can continue: a user's message, or results of the calls that wait for a result. */
export function continuation(messages: readonly ChatMessage[], content: string): ChatMessage[] {
  const waiting = pendingCalls(messages);
  return waiting.length === 0
    ? [{ role: 'user', content }]
    : waiting.map(({ toolCallId, toolName }) => ({ role: 'tool', toolCallId, toolName, content }));
}

/** A system prompt and the messages after it. */
export interface Conversation {
  systemPrompt: string | undefined;
  messages: ChatMessage[];
}

/**
 * Reads the conversation that a session starts with: an optional system message, and then messages as in
 * {@link readHistory}.
 *
 * @param systemPrompt the option `systemPrompt`
 * @throws HeadstartError `INVALID_ARGUMENT`, for example if there are both a system message and a `systemPrompt`.
 */
export function readConversation(
  input: readonly ConversationMessage[],
  systemPrompt: string | undefined,
): Conversation {
  const [first] = Array.isArray(input) ? input : [];
  if (first === undefined || !isSystemMessage(first)) {
    return { systemPrompt, messages: readHistory(input) };
  }
  if (systemPrompt !== undefined) {
    throw invalidMessage(
      `Expected one system prompt, got \`systemPrompt\` and a ${first.role} message as the first of \`messages\`: ` +
        'leave one out',
    );
  }
  const messages = readHistory(input.slice(1), 1);
  return { systemPrompt: reader.systemText(first, 'message 0'), messages };
}

/**
 * Reads the messages of an earlier conversation. Works like {@link readTurn}, but the last message may be a reply, even
 * a reply with unanswered calls.
 *
 * @param firstIndex the index of the first message, for error messages
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function readHistory(input: readonly ConversationMessage[], firstIndex = 0): ChatMessage[] {
  const messages = readMessages(input, firstIndex);
  requireResults(messages, true);
  return withToolNames(messages, []);
}

/** The calls of the newest reply that have no result yet. */
export function pendingCalls(messages: readonly ChatMessage[]): readonly ToolCall[] {
  const withResult = new Set<string>();
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index] as ChatMessage;
    if (message.role === 'tool') {
      withResult.add(message.toolCallId);
    } else if (message.role === 'assistant') {
      return callsOf(message).filter(({ toolCallId }) => !withResult.has(toolCallId));
    } else {
      return [];
    }
  }
  return [];
}

function readMessages(input: unknown, firstIndex = 0): ChatMessage[] {
  return Array.from(Array.isArray(input) ? input : [input], (message: unknown, index) => {
    const where = Array.isArray(input) ? `message ${firstIndex + index}` : 'the message';
    return Object.freeze(reader.message(message, where));
  });
}

/**
 * Checks that every call has exactly one result, before the next user message or reply, and that every result belongs
 * to a call.
 *
 * @param mayLackResults whether the last calls may have no results yet
 */
function requireResults(messages: readonly ChatMessage[], mayLackResults = false): void {
  let unanswered = new Set<string>();
  for (const message of messages) {
    if (message.role === 'tool') {
      if (!unanswered.delete(message.toolCallId)) {
        throw invalidMessage(
          `Expected the result of an unanswered tool call, got a result for ${describe(message.toolCallId)}`,
        );
      }
      continue;
    }
    requireAllAnswered(unanswered);
    unanswered = new Set();
    for (const { toolCallId } of callsOf(message)) {
      if (unanswered.has(toolCallId)) {
        throw invalidMessage(
          `Expected the calls of a message to have different ids, got ${describe(toolCallId)} twice`,
        );
      }
      unanswered.add(toolCallId);
    }
  }
  if (!mayLackResults) {
    requireAllAnswered(unanswered);
  }
}

function requireAllAnswered(unanswered: ReadonlySet<string>): void {
  if (unanswered.size > 0) {
    throw invalidMessage(
      `Expected results for the tool calls ${[...unanswered].map(describe).join(', ')} first: ` +
        "send { role: 'tool', toolCallId, content } for each",
    );
  }
}

/** Adds the names of tools to their results, because chat templates may show these names. */
function withToolNames(messages: readonly ChatMessage[], history: readonly ChatMessage[]): ChatMessage[] {
  const names = new Map<string, string>();
  for (const message of [...history, ...messages]) {
    for (const { toolCallId, toolName } of callsOf(message)) {
      names.set(toolCallId, toolName);
    }
  }
  return messages.map((message) => {
    const toolName =
      message.role === 'tool' && message.toolName === undefined ? names.get(message.toolCallId) : undefined;
    return toolName === undefined ? message : Object.freeze({ ...(message as ToolMessage), toolName });
  });
}
