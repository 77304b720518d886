import type { ToolDefinition } from './renderer.js';

/** A call of a tool that the model asked for. */
export interface ToolCall {
  /** Unique in its conversation: nine letters and digits, which every chat template takes. */
  toolCallId: string;
  /** The name of the tool, as the model wrote it: there may be none of that name. */
  toolName: string;
  /** The arguments, as the JSON that the model wrote says. Frozen. */
  input: unknown;
}

/** What the user said. */
export interface UserMessage {
  /** Who speaks. */
  role: 'user';
  /** The text. What looks like a control token in it stays text. */
  content: string;
}

/** What the model said. */
export interface AssistantMessage {
  /** Who speaks. */
  role: 'assistant';
  /** The text; empty where the model only called tools. */
  content: string;
  /** What the model thought before it answered. Whether it is shown to the model again is up to the chat template. */
  reasoning?: string;
  /** Each has to be answered by a {@link ToolMessage} before the conversation goes on. */
  toolCalls?: readonly ToolCall[];
}

/** The result of a tool call. */
export interface ToolMessage {
  /** Who speaks. */
  role: 'tool';
  /** The call that this answers. */
  toolCallId: string;
  /** The name of the tool, for chat templates that show it. @default that of the call */
  toolName?: string;
  /** What the model is told. What looks like a control token in it stays text. */
  content: string;
}

/** A message of a conversation. What the model is told to be is no message: see `systemPrompt`. */
export type ChatMessage = UserMessage | AssistantMessage | ToolMessage;

/** A message in the OpenAI chat format, which `Model.render` takes. */
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

/** At most so many characters from the beginning of a text, without half of one at the end. */
export function beginningOf(text: string, limit: number): string {
  return text.slice(0, limit).replace(/[\uD800-\uDBFF]$/, '');
}

/**
 * Arguments of a call, from their JSON. The conversation shows them again in each turn: so nobody can change them.
 *
 * @throws SyntaxError, or RangeError for what nests too deep
 */
export function inputFrom(json: string): unknown {
  return JSON.parse(json, (_, value: unknown) => Object.freeze(value));
}

export function toOpenAiTool(tool: ToolDefinition): object {
  const { name, description = '', parameters = { type: 'object', properties: {} } } = tool;
  return { type: 'function', function: { name, description, parameters } };
}
