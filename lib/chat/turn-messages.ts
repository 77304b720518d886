import { asMessages, type Rejected } from '../generate/response-format.js';
import type { ToolResult } from '../generate/stream-parts.js';
import { CallIds } from '../generate/tool-calls.js';
import type { AssistantMessage, ChatMessage, ToolCall, ToolMessage } from '../prompt/messages.js';
import type { ToolOutcome } from '../tools/run-calls.js';

/** The messages of a turn: the conversation, and everything that the turn adds to it. */
export class TurnMessages {
  /** All calls of the turn. */
  readonly toolCalls: ToolCall[] = [];
  /** The results of the tools that ran, in the order in which they ended. */
  readonly toolResults: ToolResult[] = [];
  #conversation: ChatMessage[];
  readonly #before: readonly ChatMessage[];
  readonly #added: ChatMessage[] = [];
  readonly #rejected: Rejected[] = [];

  /** @param messages the conversation with the messages that the model answers */
  constructor(messages: readonly ChatMessage[]) {
    this.#before = messages;
    this.#conversation = [...messages];
  }

  /** The conversation with the messages of this turn. A compaction may have shortened it. */
  get conversation(): readonly ChatMessage[] {
    return this.#conversation;
  }

  /** The messages of the next prompt: the conversation, and the replies that the response format did not allow. */
  get ofPrompt(): readonly ChatMessage[] {
    return [...this.#conversation, ...this.#rejected.flatMap(asMessages)];
  }

  /** The newest reply that the response format did not allow. */
  get rejected(): Rejected | undefined {
    return this.#rejected.at(-1);
  }

  /** Makes ids for new calls. They differ from all ids of the conversation, even of messages that a summary replaced. */
  callIds(): CallIds {
    return new CallIds([...this.#before, ...this.#added]);
  }

  /** Replaces the conversation by a shorter one. */
  shorten(conversation: readonly ChatMessage[]): void {
    this.#conversation = [...conversation];
  }

  addReply(reply: AssistantMessage, calls: readonly ToolCall[]): void {
    this.#add(freeze(reply));
    this.toolCalls.push(...calls);
  }

  /**
   * Adds a reply that the model is asked to replace. The reply is part of the turn's prompts, but not of the
   * conversation.
   */
  reject({ reply, error }: Rejected): void {
    this.#rejected.push({ reply: freeze(reply), error });
  }

  /** Adds the results of the newest reply's calls. */
  addResults(calls: readonly ToolCall[], outcomes: ReadonlyMap<string, ToolOutcome>): void {
    if ([...outcomes.values()].some(({ call }) => !calls.includes(call))) {
      // A hook changed the arguments of calls. The message must contain the changed calls.
      const message = this.#conversation.pop() as AssistantMessage;
      const toolCalls = calls.map((call) => outcomes.get(call.toolCallId)?.call ?? call);
      this.#conversation.push(freeze({ ...message, toolCalls }));
    }
    for (const { toolCallId, toolName } of calls) {
      const outcome = outcomes.get(toolCallId);
      if (outcome !== undefined) {
        const message: ToolMessage = { role: 'tool', toolCallId, toolName, content: outcome.content };
        this.#add(Object.freeze(message));
      }
    }
  }

  #add(message: ChatMessage): void {
    this.#conversation.push(message);
    this.#added.push(message);
  }
}

function freeze(message: AssistantMessage): AssistantMessage {
  return Object.freeze({
    ...message,
    ...(message.toolCalls !== undefined && {
      toolCalls: Object.freeze(message.toolCalls.map((call) => Object.freeze({ ...call }))),
    }),
  });
}
