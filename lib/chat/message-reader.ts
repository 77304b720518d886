// Reads the messages of programs. Checks each message and returns it with the field names of this package.
import { parseArguments } from '../generate/tool-calls.js';
import { isObject } from '../json.js';
import { describe, nearestName } from '../options.js';
import { withoutReferences } from '../prompt/deferred-tools.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import {
  type AssistantMessage,
  type ChatMessage,
  inputFrom,
  type ToolCall,
  type UserMessage,
} from '../prompt/messages.js';
import { invalidMessage } from './invalid-message.js';
import { strictText, tolerantText } from './message-content.js';

/**
 * How messages are read. `strict` refuses fields, parts and arguments that are unknown or invalid, and system messages.
 * `tolerant` accepts the history of any client: it ignores unknown fields, and missing content is an empty text.
 */
export type ReadingMode = 'strict' | 'tolerant';

type FieldNames = Readonly<Record<string, string>>;
type Fields = Readonly<Record<string, unknown>>;

/** For each role: every accepted field name, and the name of that field in this package. */
const FIELDS: Record<ChatMessage['role'], FieldNames> = {
  system: { role: 'role', content: 'content' },
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
/** The fields of a tool call, with the names of this package. A `tool-call` part of a stream also has a `type`. */
const CALL_FIELDS = { toolCallId: 'toolCallId', toolName: 'toolName', input: 'input', type: 'type' };
/** The fields of a tool call, with OpenAI's names. A call that was assembled from a stream also has an `index`. */
const OPENAI_CALL_FIELDS = { id: 'toolCallId', function: 'function', type: 'type', index: 'index' };
const FUNCTION_FIELDS = { name: 'toolName', arguments: 'arguments' };

/** Whether a message is a system message, under its older or its newer name. */
export function isSystemMessage(message: unknown): boolean {
  return isObject(message) && (message.role === 'system' || message.role === 'developer');
}

/** Reads messages in one mode. */
export class MessageReader {
  readonly #isTolerant: boolean;

  constructor(mode: ReadingMode) {
    this.#isTolerant = mode === 'tolerant';
  }

  /**
   * The text of a system message.
   *
   * @param where what error messages call the message, for example "message 0"
   * @throws HeadstartError `INVALID_ARGUMENT`.
   */
  systemText(message: object, where: string): string {
    return this.#text(this.#renamed(message, FIELDS.system, where).content, where);
  }

  /**
   * Checks a message and returns a copy with the names of this package. In a tolerant copy, an id is empty if the
   * message has none.
   *
   * @param where what error messages call the message, for example "message 0"
   * @throws HeadstartError `INVALID_ARGUMENT`.
   */
  message(message: unknown, where: string): ChatMessage {
    if (!isObject(message)) {
      throw invalidMessage(
        `Expected ${where} to be a string or an object with \`role\` and \`content\`, got ${describe(message)}`,
      );
    }
    const role = this.#role(message.role, where);
    const fields = this.#renamed(message, FIELDS[role], where);
    switch (role) {
      case 'system':
        return { role, content: this.#text(fields.content, where) };
      case 'user':
        return { role, ...this.#content(fields, where) };
      case 'assistant':
        return this.#reply(fields, where);
      case 'tool':
        return {
          role,
          ...this.#content(fields, where),
          toolCallId: this.#id(fields.toolCallId, where),
          ...this.#resultName(fields.toolName, where),
        };
    }
  }

  #reply({ content, reasoning, toolCalls }: Fields, where: string): AssistantMessage {
    const calls = toolCalls === undefined ? undefined : this.#calls(toolCalls, where);
    return {
      role: 'assistant',
      content: this.#text(calls?.length ? (content ?? '') : content, where),
      ...this.#reasoning(reasoning, where),
      ...(calls !== undefined && { toolCalls: calls }),
    };
  }

  #reasoning(reasoning: unknown, where: string): Pick<AssistantMessage, 'reasoning'> {
    const isText = typeof reasoning === 'string' || Array.isArray(reasoning);
    return reasoning === undefined || (this.#isTolerant && !isText)
      ? {}
      : { reasoning: this.#text(reasoning, `\`reasoning\` of ${where}`) };
  }

  /** The text of a message, and the deferred tools to which the message refers. */
  #content(fields: Fields, where: string): Pick<UserMessage, 'content' | 'toolReferences'> {
    const { content, ...inContent } = withoutReferences(fields.content);
    const { toolReferences } = fields;
    return {
      content: this.#text(content, where),
      ...(toolReferences === undefined ? inContent : { toolReferences: readReferences(toolReferences, where) }),
    };
  }

  #role(role: unknown, where: string): ChatMessage['role'] {
    const isSystem = role === 'system' || role === 'developer';
    if (isSystem && !this.#isTolerant) {
      throw invalidMessage(
        `Expected ${where} to be a message of the user, assistant or tool, got a ${role} message: pass it to \`createSession\`, ` +
          'as `systemPrompt` or as the first of `messages`',
      );
    }
    if (!isSystem && role !== 'user' && role !== 'assistant' && role !== 'tool') {
      const system = this.#isTolerant ? 'system, developer, ' : '';
      throw invalidMessage(
        `Expected \`role\` of ${where} to be ${system}user, assistant or tool, got ${describe(role)}`,
      );
    }
    return isSystem ? 'system' : role;
  }

  /**
   * Renames the fields of an object to the names of this package. Leaves out empty fields.
   *
   * @param names every accepted field name, and the name of that field in this package
   */
  #renamed(message: object, names: FieldNames, where: string): Fields {
    const fields: Record<string, unknown> = {};
    const originalNames: Record<string, string> = {};
    for (const [name, value] of Object.entries(message)) {
      const field = Object.hasOwn(names, name) ? names[name] : undefined;
      const isEmpty = value === undefined || (value === null && name !== 'content');
      if (isEmpty || (field === undefined && (this.#isTolerant || (Array.isArray(value) && value.length === 0)))) {
        continue; // clients also send fields that they do not use: `refusal: null`, `annotations: []`
      }
      if (field === undefined) {
        const near = nearestName(name, Object.keys(names));
        throw invalidMessage(
          `Unknown field \`${name}\` in ${where}${near === undefined ? '' : `: did you mean \`${near}\`?`}`,
        );
      }
      if (originalNames[field] === undefined) {
        originalNames[field] = name;
        fields[field] = value;
      } else if (!this.#isTolerant) {
        throw invalidMessage(`Expected \`${originalNames[field]}\` or \`${name}\` in ${where}, got both`);
      }
    }
    return fields;
  }

  #text(content: unknown, where: string): string {
    return this.#isTolerant ? tolerantText(content, where) : strictText(content, where);
  }

  #calls(calls: unknown, where: string): ToolCall[] {
    if (!Array.isArray(calls)) {
      throw invalidMessage(`Expected \`toolCalls\` of ${where} to be an array, got ${describe(calls)}`);
    }
    return Array.from(calls, (call: unknown) => this.#call(call, `a call in ${where}`));
  }

  #call(call: unknown, where: string): ToolCall {
    if (!isObject(call)) {
      throw invalidMessage(`Expected ${where} to be an object, got ${describe(call)}`);
    }
    const fields = isObject(call.function)
      ? this.#openAiCallFields(call, call.function, where)
      : this.#renamed(call, CALL_FIELDS, where);
    const toolCallId = this.#id(fields.toolCallId, where);
    const toolName = readName(fields.toolName, `\`toolName\` of ${where}`);
    try {
      return { toolCallId, toolName, input: this.#isTolerant ? tolerantInput(fields) : strictInput(fields) };
    } catch (cause) {
      throw invalidMessage(
        `Expected the arguments of the call ${describe(toolCallId)} to be JSON data: ${(cause as Error).message}`,
        cause,
      );
    }
  }

  #openAiCallFields(call: object, called: object, where: string): Fields {
    const { function: _, ...fields } = this.#renamed(call, OPENAI_CALL_FIELDS, where);
    return { ...fields, ...this.#renamed(called, FUNCTION_FIELDS, `\`function\` of ${where}`) };
  }

  #resultName(toolName: unknown, where: string): { toolName?: string } {
    const isLeftOut = toolName === undefined || (this.#isTolerant && stringOr('', toolName) === '');
    return isLeftOut ? {} : { toolName: readName(toolName, `\`toolName\` of ${where}`) };
  }

  #id(id: unknown, where: string): string {
    return this.#isTolerant ? stringOr('', id) : readName(id, `\`toolCallId\` of ${where}`);
  }
}

/**
 * The arguments as JSON text. OpenAI sends JSON text, but some servers with the same API send an object.
 *
 * @throws TypeError or RangeError if the arguments are not JSON data.
 */
function argumentsOf({ arguments: openAi, input = {} }: Fields): string {
  if (typeof openAi === 'string') {
    return openAi.trim() || '{}';
  }
  const json: string | undefined = JSON.stringify(openAi ?? input);
  if (json === undefined) {
    throw new TypeError(`got ${describe(openAi ?? input)}`);
  }
  return json;
}

function strictInput(fields: Fields): unknown {
  const json = argumentsOf(fields);
  if (typeof fields.arguments === 'string') {
    requireExactIntegers(json);
  }
  return inputFrom(json);
}

/** The arguments as an object, or as text if they are not a JSON object or contain an integer that would be rounded. */
function tolerantInput(fields: Fields): unknown {
  if (typeof fields.input === 'string') {
    return fields.input; // the text of a call whose arguments were not JSON
  }
  const json = argumentsOf(fields);
  const input = parseArguments(json);
  return isObject(input) ? input : json;
}

function readReferences(names: unknown, where: string): readonly string[] {
  if (!Array.isArray(names)) {
    throw invalidMessage(`Expected \`toolReferences\` of ${where} to be an array, got ${describe(names)}`);
  }
  return Object.freeze(names.map((name) => readName(name, `each of the \`toolReferences\` of ${where}`)));
}

function stringOr(fallback: string, value: unknown): string {
  return typeof value === 'string' ? value : fallback;
}

function readName(value: unknown, what: string): string {
  if (typeof value !== 'string' || value === '') {
    throw invalidMessage(`Expected ${what} to be a non-empty string, got ${describe(value)}`);
  }
  return value;
}
