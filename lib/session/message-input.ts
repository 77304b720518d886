// A message as a program gives it, by our names of its fields or by OpenAI's: checked, and in our form.
import { HeadstartError } from '../errors.js';
import { describe, nearestName } from '../options.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import {
  type AssistantMessage,
  type ChatMessage,
  inputFrom,
  type ToolCall,
  type ToolMessage,
  type UserMessage,
} from '../prompt/messages.js';

/** Text of a message: whole, or in parts as other APIs have it. */
export type MessageText =
  | string
  | readonly {
      readonly type: 'text';
      /** Parts are put together as they are, with nothing between them. */
      readonly text: string;
    }[];

type WithText<T> = Omit<T, 'content'> & { content: MessageText };

/** A tool call as the OpenAI chat API has it. */
export interface OpenAiToolCall {
  /** Unique in its conversation. */
  id: string;
  /** The only kind there is. */
  type: 'function';
  /** What is called. */
  function: {
    /** The name of the tool. */
    name: string;
    /** The arguments as JSON; an empty text is no arguments. */
    arguments: string;
  };
}

/** A reply as the OpenAI chat API has it. */
export interface OpenAiAssistantMessage {
  /** Who speaks. */
  role: 'assistant';
  /** The text; may be null or absent beside `tool_calls`. */
  content?: MessageText | null;
  /** As {@link AssistantMessage.reasoning}. */
  reasoning_content?: string | null;
  /** As {@link AssistantMessage.toolCalls}. */
  tool_calls?: readonly OpenAiToolCall[] | null;
}

/** A tool's result as the OpenAI chat API has it. */
export interface OpenAiToolMessage {
  /** Who speaks. */
  role: 'tool';
  /** As {@link ToolMessage.toolCallId}. */
  tool_call_id: string;
  /** As {@link ToolMessage.toolName}. */
  name?: string;
  /** What the model is told. */
  content: MessageText;
}

/**
 * A message to send. `assistant` messages put words into the model's mouth, or bring back an older conversation. OpenAI's names of
 * fields do as well as ours; an unknown field is `INVALID_ARGUMENT`, unless it is null, undefined or an empty array.
 */
export type MessageInput =
  | WithText<UserMessage>
  | WithText<ToolMessage>
  | WithText<AssistantMessage>
  | OpenAiAssistantMessage
  | OpenAiToolMessage;

/** The fields of each kind of message, by every name that they may have. */
const FIELDS: Record<ChatMessage['role'], Readonly<Record<string, string>>> = {
  user: { role: 'role', content: 'content' },
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
  },
};
/** Of a tool call in our form. A stream's part has a `type`. */
const CALL_FIELDS = { toolCallId: 'toolCallId', toolName: 'toolName', input: 'input', type: 'type' };
/** Of one in OpenAI's form. A call that was put together from a stream has an `index`. */
const OPENAI_CALL_FIELDS = { id: 'toolCallId', function: 'function', type: 'type', index: 'index' };
const FUNCTION_FIELDS = { name: 'toolName', arguments: 'arguments' };

/**
 * @param where what an error calls the message
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function readMessage(message: unknown, where: string): ChatMessage {
  if (!isObject(message)) {
    throw invalidMessage(
      `Expected ${where} to be a string or an object with \`role\` and \`content\`, got ${describe(message)}`,
    );
  }
  const role = readRole(message.role, where);
  const { content, toolCallId, toolName, reasoning, toolCalls } = renamed(message, FIELDS[role], where);
  const calls = toolCalls === undefined ? undefined : readCalls(toolCalls, where);
  const text = readText(calls?.length ? (content ?? '') : content, where);
  switch (role) {
    case 'user':
      return { role, content: text };
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
      };
  }
}

function readRole(role: unknown, where: string): ChatMessage['role'] {
  if (role === 'system' || role === 'developer') {
    throw invalidMessage(
      `Expected no ${role} message in a turn (${where}): give \`systemPrompt\` to \`createSession\``,
    );
  }
  if (role !== 'user' && role !== 'assistant' && role !== 'tool') {
    throw invalidMessage(`Expected \`role\` of ${where} to be user, assistant or tool, got ${describe(role)}`);
  }
  return role;
}

/**
 * The fields that say something, by our names.
 *
 * @param names every known name of a field, and ours
 */
function renamed(given: object, names: Readonly<Record<string, string>>, where: string): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  const givenAs: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    const field = Object.hasOwn(names, name) ? names[name] : undefined;
    const isEmpty = value === undefined || (value === null && name !== 'content');
    if (isEmpty || (field === undefined && Array.isArray(value) && value.length === 0)) {
      continue; // clients write fields that they do not use: `refusal: null`, `annotations: []`
    }
    if (field === undefined) {
      const near = nearestName(name, Object.keys(names));
      throw invalidMessage(
        `Unknown field \`${name}\` in ${where}${near === undefined ? '' : `: did you mean \`${near}\`?`}`,
      );
    }
    if (givenAs[field] !== undefined) {
      throw invalidMessage(`Expected \`${givenAs[field]}\` or \`${name}\` in ${where}, got both`);
    }
    givenAs[field] = name;
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
          `Expected the content of ${where} to have text parts only, got one of type ${describe(type)}`,
        );
      }
      return text;
    })
    .join('');
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
  const { function: _, ...own } = renamed(call, OPENAI_CALL_FIELDS, where);
  return { ...own, ...renamed(called, FUNCTION_FIELDS, `\`function\` of ${where}`) };
}

/** As JSON. OpenAI has them as a text; some servers with its API send an object. */
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

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function invalidMessage(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('INVALID_ARGUMENT', message, { cause });
}
