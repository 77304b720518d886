// Reads the messages of programs, with the field names of this package or of OpenAI's API. Checks each message and
// returns it with the field names of this package.
import { HeadstartError } from '../errors.js';
import { isObject } from '../json.js';
import { describe, nearestName } from '../options.js';
import { type ToolReferencePart, withoutReferences } from '../prompt/deferred-tools.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import {
  type AssistantMessage,
  type ChatMessage,
  inputFrom,
  type ToolCall,
  type ToolMessage,
  type UserMessage,
} from '../prompt/messages.js';

/** A part of a text, as in the OpenAI API. */
export interface TextPart {
  readonly type: 'text';
  /** Parts are joined unchanged, with nothing between them. */
  readonly text: string;
}

/** The text of a message: a string, or a list of parts as in the OpenAI API. */
export type MessageText = string | readonly TextPart[];

type WithText<T> = Omit<T, 'content'> & { content: MessageText };
type WithParts<T> = Omit<T, 'content'> & { content: string | readonly (TextPart | ToolReferencePart)[] };

/** A tool call in the form of the OpenAI chat API. */
export interface OpenAiToolCall {
  /** Unique in its conversation. */
  id: string;
  /** The only kind of call. */
  type: 'function';
  /** The called function. */
  function: {
    /** The name of the tool. */
    name: string;
    /** The arguments as JSON. An empty string means no arguments. */
    arguments: string;
  };
}

/** A reply in the form of the OpenAI chat API. */
export interface OpenAiAssistantMessage {
  /** Marks a reply of the model. */
  role: 'assistant';
  /** The text. May be null or absent if there are `tool_calls`. */
  content?: MessageText | null;
  /** The same as {@link AssistantMessage.reasoning}. */
  reasoning_content?: string | null;
  /** The same as {@link AssistantMessage.toolCalls}. */
  tool_calls?: readonly OpenAiToolCall[] | null;
}

/** The result of a tool in the form of the OpenAI chat API. */
export interface OpenAiToolMessage {
  /** Marks the result of a tool. */
  role: 'tool';
  /** The same as {@link ToolMessage.toolCallId}. */
  tool_call_id: string;
  /** The same as {@link ToolMessage.toolName}. */
  name?: string;
  /** The result, as text for the model. */
  content: string | readonly (TextPart | ToolReferencePart)[];
}

/** The system prompt as the first message of a conversation. */
export interface SystemMessageInput {
  /** `developer` is OpenAI's newer name for `system`. */
  role: 'system' | 'developer';
  /** The system prompt. */
  content: MessageText;
}

/**
 * A message of a turn. An `assistant` message is a reply that the model did not write in this session, for example a
 * reply of an older conversation. The field names may be those of this package or of the OpenAI API. An unknown field
 * is `INVALID_ARGUMENT`, unless its value is null, undefined or an empty array.
 */
export type MessageInput =
  | WithParts<UserMessage>
  | WithParts<ToolMessage>
  | WithText<AssistantMessage>
  | OpenAiAssistantMessage
  | OpenAiToolMessage;

/** A message of a conversation that a session starts with. Only the first message may be a system message. */
export type ConversationMessage = SystemMessageInput | MessageInput;

/** For each role: every accepted field name, and the name of that field in this package. */
const FIELDS: Record<ChatMessage['role'], Readonly<Record<string, string>>> = {
  user: { role: 'role', content: 'content', toolReferences: 'toolReferences' },
  assistant: {
    role: 'role',
    content: 'content',
    reasoning: 'reasoning',
    reasoning_content: 'reasoning',
    toolCalls: 'toolCalls',
    tool_calls: 'toolCalls',
  },
  tool: {
    role: 'role',
    content: 'content',
    toolCallId: 'toolCallId',
    tool_call_id: 'toolCallId',
    toolName: 'toolName',
    name: 'toolName',
    toolReferences: 'toolReferences',
  },
};
const SYSTEM_FIELDS = { role: 'role', content: 'content' };
/** The fields of a tool call, with the names of this package. A `tool-call` part of a stream also has a `type`. */
const CALL_FIELDS = { toolCallId: 'toolCallId', toolName: 'toolName', input: 'input', type: 'type' };
/** The fields of a tool call, with OpenAI's names. A call that was assembled from a stream also has an `index`. */
const OPENAI_CALL_FIELDS = { id: 'toolCallId', function: 'function', type: 'type', index: 'index' };
const FUNCTION_FIELDS = { name: 'toolName', arguments: 'arguments' };

export function isSystemMessage(message: unknown): message is SystemMessageInput {
  return isObject(message) && (message.role === 'system' || message.role === 'developer');
}

/**
 * The text of a system message.
 *
 * @param where the name of the message in errors
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function readSystemMessage(message: SystemMessageInput, where: string): string {
  return readText(renamed(message, SYSTEM_FIELDS, where).content, where);
}

/**
 * Checks a message and returns a copy with the names of this package.
 *
 * @param where the name of the message in errors
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function readMessage(message: unknown, where: string): ChatMessage {
  if (!isObject(message)) {
    throw invalidMessage(
      `Expected ${where} to be a string or an object with \`role\` and \`content\`, got ${describe(message)}`,
    );
  }
  const role = readRole(message.role, where);
  const { content: given, toolCallId, toolName, reasoning, toolCalls, ...rest } = renamed(message, FIELDS[role], where);
  const { content, ...found } = role === 'assistant' ? { content: given } : withoutReferences(given);
  const references =
    rest.toolReferences === undefined ? found : { toolReferences: readReferences(rest.toolReferences, where) };
  const calls = toolCalls === undefined ? undefined : readCalls(toolCalls, where);
  const text = readText(calls?.length ? (content ?? '') : content, where);
  switch (role) {
    case 'user':
      return { role, content: text, ...references };
    case 'assistant':
      return {
        role,
        content: text,
        ...(reasoning !== undefined && { reasoning: readText(reasoning, `\`reasoning\` of ${where}`) }),
        ...(calls !== undefined && { toolCalls: calls }),
      };
    case 'tool':
      return {
        role,
        content: text,
        toolCallId: readName(toolCallId, `\`toolCallId\` of ${where}`),
        ...(toolName !== undefined && { toolName: readName(toolName, `\`toolName\` of ${where}`) }),
        ...references,
      };
  }
}

function readRole(role: unknown, where: string): ChatMessage['role'] {
  if (role === 'system' || role === 'developer') {
    throw invalidMessage(
      `Expected ${where} to be a message of the user, assistant or tool, got a ${role} message: pass it to \`createSession\`, ` +
        'as `systemPrompt` or as the first of `messages`',
    );
  }
  if (role !== 'user' && role !== 'assistant' && role !== 'tool') {
    throw invalidMessage(`Expected \`role\` of ${where} to be user, assistant or tool, got ${describe(role)}`);
  }
  return role;
}

/**
 * Renames the fields of an object to the names of this package. Leaves out empty fields.
 *
 * @param names every accepted field name, and the name of that field in this package
 */
function renamed(message: object, names: Readonly<Record<string, string>>, where: string): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const originalNames: Record<string, string> = {};
  for (const [name, value] of Object.entries(message)) {
    const field = Object.hasOwn(names, name) ? names[name] : undefined;
    const isEmpty = value === undefined || (value === null && name !== 'content');
    if (isEmpty || (field === undefined && Array.isArray(value) && value.length === 0)) {
      continue; // clients also send fields that they do not use: `refusal: null`, `annotations: []`
    }
    if (field === undefined) {
      const near = nearestName(name, Object.keys(names));
      throw invalidMessage(
        `Unknown field \`${name}\` in ${where}${near === undefined ? '' : `: did you mean \`${near}\`?`}`,
      );
    }
    if (originalNames[field] !== undefined) {
      throw invalidMessage(`Expected \`${originalNames[field]}\` or \`${name}\` in ${where}, got both`);
    }
    originalNames[field] = name;
    fields[field] = value;
  }
  return fields;
}

function readText(content: unknown, where: string): string {
  if (typeof content === 'string') {
    return content;
  }
  if (!Array.isArray(content)) {
    throw invalidMessage(`Expected the content of ${where} to be a string or text parts, got ${describe(content)}`);
  }
  return content
    .map((part: unknown) => {
      const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
      if (type !== 'text' || typeof text !== 'string') {
        throw invalidMessage(
          `Expected the content of ${where} to have text parts only, got a part of type ${describe(type)}`,
        );
      }
      return text;
    })
    .join('');
}

function readReferences(names: unknown, where: string): readonly string[] {
  if (!Array.isArray(names)) {
    throw invalidMessage(`Expected \`toolReferences\` of ${where} to be an array, got ${describe(names)}`);
  }
  return Object.freeze(names.map((name) => readName(name, `each of the \`toolReferences\` of ${where}`)));
}

function readCalls(calls: unknown, where: string): ToolCall[] {
  if (!Array.isArray(calls)) {
    throw invalidMessage(`Expected \`toolCalls\` of ${where} to be an array, got ${describe(calls)}`);
  }
  return calls.map((call: unknown) => readCall(call, `a call in ${where}`));
}

function readCall(call: unknown, where: string): ToolCall {
  if (!isObject(call)) {
    throw invalidMessage(`Expected ${where} to be an object, got ${describe(call)}`);
  }
  const fields = isObject(call.function)
    ? openAiCallFields(call, call.function, where)
    : renamed(call, CALL_FIELDS, where);
  const toolCallId = readName(fields.toolCallId, `\`toolCallId\` of ${where}`);
  const toolName = readName(fields.toolName, `\`toolName\` of ${where}`);
  try {
    return { toolCallId, toolName, input: inputFrom(argumentsOf(fields)) };
  } catch (cause) {
    throw invalidMessage(
      `Expected the arguments of the call ${describe(toolCallId)} to be JSON data: ${(cause as Error).message}`,
      cause,
    );
  }
}

function openAiCallFields(call: object, called: object, where: string): Record<string, unknown> {
  const { function: _, ...fields } = renamed(call, OPENAI_CALL_FIELDS, where);
  return { ...fields, ...renamed(called, FUNCTION_FIELDS, `\`function\` of ${where}`) };
}

/** The arguments as JSON text. OpenAI sends JSON text, but some servers with the same API send an object. */
function argumentsOf({ arguments: openAi, input = {} }: Record<string, unknown>): string {
  if (typeof openAi !== 'string') {
    return JSON.stringify(openAi ?? input);
  }
  requireExactIntegers(openAi);
  return openAi.trim() || '{}';
}

function readName(value: unknown, what: string): string {
  if (typeof value !== 'string' || value === '') {
    throw invalidMessage(`Expected ${what} to be a non-empty string, got ${describe(value)}`);
  }
  return value;
}

export function invalidMessage(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('INVALID_ARGUMENT', message, { cause });
}
