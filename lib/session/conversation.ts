import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import {
  type AssistantMessage,
  type ChatMessage,
  inputFrom,
  type ToolCall,
  type ToolMessage,
  type UserMessage,
} from '../template/messages.js';

/** Text of a message: whole, or in parts as other APIs have it. */
export type MessageText =
  | string
  | readonly {
      readonly type: 'text';
      /** Parts are put together as they are, with nothing between them. */
      readonly text: string;
    }[];

type WithText<T> = Omit<T, 'content'> & { content: MessageText };

/** A message to send. `assistant` messages put words into the model's mouth, or bring back an older conversation. */
export type MessageInput = WithText<UserMessage> | WithText<ToolMessage> | WithText<AssistantMessage>;

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
    throw invalid('Expected a turn to end with a user message or the results of tool calls');
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

function readMessage(message: unknown, where: string): ChatMessage {
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw invalid(
      `Expected ${where} to be a string or an object with \`role\` and \`content\`, got ${describe(message)}`,
    );
  }
  const { role, content, toolCallId, toolName, reasoning, toolCalls } = message as Record<string, unknown>;
  const text = readText(content, where);
  switch (role) {
    case 'user':
      return { role, content: text };
    case 'assistant':
      return {
        role,
        content: text,
        ...(reasoning !== undefined && { reasoning: readText(reasoning, `\`reasoning\` of ${where}`) }),
        ...(toolCalls !== undefined && { toolCalls: readCalls(toolCalls, where) }),
      };
    case 'tool':
      return {
        role,
        content: text,
        toolCallId: readName(toolCallId, `\`toolCallId\` of ${where}`),
        ...(toolName !== undefined && { toolName: readName(toolName, `\`toolName\` of ${where}`) }),
      };
    case 'system':
      throw invalid(`Expected no system message in a turn (${where}): give \`systemPrompt\` to \`createSession\``);
    default:
      throw invalid(`Expected \`role\` of ${where} to be user, assistant or tool, got ${describe(role)}`);
  }
}

function readText(content: unknown, where: string): string {
  if (typeof content === 'string') {
    return content;
  }
  if (!Array.isArray(content)) {
    throw invalid(`Expected the content of ${where} to be a string or text parts, got ${describe(content)}`);
  }
  return content
    .map((part: unknown) => {
      const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
      if (type !== 'text' || typeof text !== 'string') {
        throw invalid(`Expected the content of ${where} to have text parts only, got one of type ${describe(type)}`);
      }
      return text;
    })
    .join('');
}

function readCalls(calls: unknown, where: string): ToolCall[] {
  if (!Array.isArray(calls)) {
    throw invalid(`Expected \`toolCalls\` of ${where} to be an array, got ${describe(calls)}`);
  }
  return calls.map((call: Partial<ToolCall> | null) => {
    const toolCallId = readName(call?.toolCallId, `\`toolCallId\` of a call in ${where}`);
    const toolName = readName(call?.toolName, `\`toolName\` of a call in ${where}`);
    try {
      return { toolCallId, toolName, input: inputFrom(JSON.stringify(call?.input ?? {})) };
    } catch (cause) {
      throw invalid(`Expected \`input\` of the call ${describe(toolCallId)} to be JSON data`, cause);
    }
  });
}

function readName(value: unknown, what: string): string {
  if (typeof value !== 'string' || value === '') {
    throw invalid(`Expected ${what} to be a non-empty string, got ${describe(value)}`);
  }
  return value;
}

/** Every call is answered, once, before anybody else speaks, and nothing is answered that was not called. */
function requireAnswers(messages: readonly ChatMessage[], mayWait = false): void {
  let open = new Set<string>();
  for (const message of messages) {
    if (message.role === 'tool') {
      if (!open.delete(message.toolCallId)) {
        throw invalid(`Expected a result for a call that waits for one, got one for ${describe(message.toolCallId)}`);
      }
      continue;
    }
    requireNoneOpen(open);
    open = new Set();
    for (const { toolCallId } of message.role === 'assistant' ? (message.toolCalls ?? []) : []) {
      if (open.has(toolCallId)) {
        throw invalid(`Expected the calls of a message to have ids of their own, got ${describe(toolCallId)} twice`);
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
    throw invalid(
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

function invalid(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('INVALID_ARGUMENT', message, { cause });
}
