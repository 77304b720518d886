// The messages that programs may pass, with the field names of this package or of OpenAI's API.
import type { ToolReferencePart } from '../prompt/deferred-tools.js';
import type { AssistantMessage, ToolMessage, UserMessage } from '../prompt/messages.js';

/** A part of a text, as in the OpenAI API. */
export interface TextPart {
  /** Marks a text. */
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

/** A system message. As the first message of a conversation, it is the system prompt. */
export interface SystemMessageInput {
  /** `developer` is OpenAI's newer name for `system`. */
  role: 'system' | 'developer';
  /** The text. */
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

/** A part of the content of a message. */
export interface ContentPart {
  /** `text`, or another kind. Images, audio and files become a short note. Unknown kinds are ignored. */
  readonly type: string;
  /** The text of a text part. */
  readonly text?: string;
  /** Other fields of the part. */
  readonly [field: string]: unknown;
}

/**
 * A message of a stateless request, in a form that clients of other APIs send. It may lack its content, and may have
 * unknown fields, which are ignored.
 */
export interface TolerantMessage {
  /** `developer` is OpenAI's newer name for `system`. */
  readonly role: 'system' | 'developer' | 'user' | 'assistant' | 'tool';
  /** The text, or parts. A message without content has an empty text. */
  readonly content?: string | readonly ContentPart[] | null;
  /**
   * Whether a system message differs between conversations, for example because it holds the date. After the first
   * system message, such a message is not a part of the system prompt. The chat template shows it after the tools, so
   * conversations share the tokens in front of it. @default false
   */
  readonly volatile?: boolean;
  /** The other fields of {@link MessageInput}, and unknown fields. */
  readonly [field: string]: unknown;
}

/** A message of a stateless request. System messages may stand anywhere. */
export type RequestMessage = ConversationMessage | TolerantMessage;
