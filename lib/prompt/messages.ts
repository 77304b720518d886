import type { ToolDefinition } from './renderer.js';

/** A call of a tool by the model. */
export interface ToolCall {
  /** Unique in its conversation: nine letters and digits, which every chat template accepts. */
  toolCallId: string;
  /** The name of the tool as the model wrote it. A tool with this name need not exist. */
  toolName: string;
  /**
   * The arguments, parsed and frozen. If the model's text is not JSON, or contains an integer that JavaScript would
   * round (beyond 2^53), `input` is the text itself.
   */
  input: unknown;
}

/** A message of the user. */
export interface UserMessage {
  /** Marks a message of the user. */
  role: 'user';
  /** The text. If it contains the text of a control token, that part stays plain text. */
  content: string;
  /**
   * The names of deferred tools that are loaded by this message. Their definitions follow the text.
   * @default none
   */
  toolReferences?: readonly string[];
}

/** A reply of the model. */
export interface AssistantMessage {
  /** Marks a reply of the model. */
  role: 'assistant';
  /** The text. Empty if the model only called tools. */
  content: string;
  /** The reasoning in front of the answer. The chat template decides whether later prompts contain it. */
  reasoning?: string;
  /** The tool calls. Each call needs a {@link ToolMessage} with its result before the conversation continues. */
  toolCalls?: readonly ToolCall[];
}

/** The result of a tool call. */
export interface ToolMessage {
  /** Marks the result of a tool. */
  role: 'tool';
  /** The id of the call that this message answers. */
  toolCallId: string;
  /** The name of the tool, for chat templates that show it. @default the name in the call */
  toolName?: string;
  /** The result, as text for the model. If it contains the text of a control token, that part stays plain text. */
  content: string;
  /**
   * The names of deferred tools that are loaded by this message. Their definitions follow the text.
   * @default none
   */
  toolReferences?: readonly string[];
}

/**
 * A system message in the middle of a conversation. Only requests of `AgentServer.chat` have such messages. The system
 * prompt at the beginning is not a message: see `systemPrompt`.
 */
export interface SystemMessage {
  /** Marks an instruction of the program. */
  role: 'system';
  /** The text. If it contains the text of a control token, that part stays plain text. */
  content: string;
}

/** A message of a conversation. The system prompt is not a message: see `systemPrompt`. */
export type ChatMessage = UserMessage | AssistantMessage | ToolMessage | SystemMessage;

/** The form of a call's id that every chat template accepts. Mistral's chat templates require this form. */
export const PORTABLE_CALL_ID = /^[A-Za-z0-9]{9}$/;

/** The calls in a message. */
export function callsOf(message: ChatMessage): readonly ToolCall[] {
  return message.role === 'assistant' ? (message.toolCalls ?? NO_CALLS) : NO_CALLS;
}

const NO_CALLS: readonly ToolCall[] = [];

/** Converts a message to the OpenAI chat format, which `Model.render` expects. */
export function toOpenAiMessage(message: ChatMessage): object {
  switch (message.role) {
    case 'assistant': {
      const { content, reasoning, toolCalls = [] } = message;
      return {
        role: 'assistant',
        content,
        ...(reasoning && { reasoning_content: reasoning }),
        ...(toolCalls.length > 0 && { tool_calls: toolCalls.map(toOpenAiCall) }),
      };
    }
    case 'tool':
      return {
        role: 'tool',
        content: message.content,
        tool_call_id: message.toolCallId,
        ...(message.toolName !== undefined && { name: message.toolName }),
      };
    default:
      return { role: message.role, content: message.content };
  }
}

function toOpenAiCall({ toolCallId, toolName, input }: ToolCall): object {
  return { id: toolCallId, type: 'function', function: { name: toolName, arguments: JSON.stringify(input) } };
}

/** At most `limit` characters from the beginning of a text, without half a surrogate pair at the end. */
export function beginningOf(text: string, limit: number): string {
  return text.slice(0, limit).replace(/[\uD800-\uDBFF]$/, '');
}

/**
 * Parses and freezes the arguments of a call. The arguments must not change, because every later prompt contains them.
 *
 * @throws SyntaxError, or RangeError if the arguments are nested too deeply
 */
export function inputFrom(json: string): unknown {
  return JSON.parse(json, (_, value: unknown) => Object.freeze(value));
}

export function toOpenAiTool(tool: ToolDefinition): object {
  const { name, description = '', parameters = { type: 'object', properties: {} } } = tool;
  return { type: 'function', function: { name, description, parameters } };
}
