/** A call of a tool that the model asked for. */
export interface ToolCall {
  /** Unique in its conversation: nine letters and digits, which every chat template takes. */
  toolCallId: string;
  toolName: string;
  /** The arguments, as the JSON that the model wrote says. */
  input: unknown;
}

/** What the model is told to be. */
export interface SystemMessage {
  role: 'system';
  content: string;
}

/** What the user said. */
export interface UserMessage {
  role: 'user';
  content: string;
}

/** What the model said. */
export interface AssistantMessage {
  role: 'assistant';
  content: string;
  /** What the model thought before it answered. Whether it is shown to the model again is up to the chat template. */
  reasoning?: string;
  /** Each has to be answered by a {@link ToolMessage} before the conversation goes on. */
  toolCalls?: readonly ToolCall[];
}

/** The result of a tool call. */
export interface ToolMessage {
  role: 'tool';
  toolCallId: string;
  /** The name of the tool, for chat templates that show it. @default that of the call */
  toolName?: string;
  content: string;
}

/** A message of a conversation. */
export type ChatMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage;

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
