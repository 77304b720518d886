// Reads the items of a conversation as messages.
import { tolerantText } from '../../chat/message-content.js';
import type { RequestMessage, TolerantMessage } from '../../chat/message-input.js';
import type { JsonObject } from '../../json.js';
import { reasoningOf } from './reasoning.js';
import type { ResponseTools } from './response-tools.js';

/** An item of the input or output of a response. */
export type Item = JsonObject;

/** The items of one reply. */
interface ReplyItems {
  reasoning: string;
  content: string;
  calls: object[];
}

/**
 * Reads the items of a conversation. The items of one reply become one message, so that the next prompt begins with the
 * tokens of the reply.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` if the content of a reply is neither a text nor a list of parts.
 */
export function messagesOf(
  items: readonly Item[],
  tools: ResponseTools,
): { messages: RequestMessage[]; warnings: string[] } {
  const reader = new ItemReader(tools);
  for (const item of items) {
    reader.add(item);
  }
  return reader.end();
}

class ItemReader {
  readonly #tools: ResponseTools;
  readonly #messages: RequestMessage[] = [];
  readonly #warnings = new Set<string>();
  /** The reply whose items are being read. */
  #reply: ReplyItems | undefined;

  constructor(tools: ResponseTools) {
    this.#tools = tools;
  }

  add(item: Item): void {
    switch (item.type ?? 'message') {
      case 'message':
        this.#addMessage(item);
        break;
      case 'reasoning':
        this.#addReasoning(reasoningOf(item));
        break;
      case 'function_call':
        this.#addCall(item, item.arguments);
        break;
      case 'custom_tool_call':
        this.#addCall(item, JSON.stringify({ input: item.input }));
        break;
      case 'function_call_output':
      case 'custom_tool_call_output':
        this.#addResult(item);
        break;
      case 'additional_tools': // see `ResponseTools`
        break;
      default:
        this.#warnings.add(
          `An input item of the type "${item.type}" was left out, because this server cannot read it.`,
        );
    }
  }

  end(): { messages: RequestMessage[]; warnings: string[] } {
    this.#endReply();
    return { messages: this.#messages, warnings: [...this.#warnings] };
  }

  #addMessage({ role, content }: Item): void {
    if (role === 'assistant') {
      this.#addText(content);
      return;
    }
    this.#endReply();
    this.#messages.push({ role, content } as TolerantMessage);
  }

  #addResult({ call_id: id, output }: Item): void {
    this.#endReply();
    const content = typeof output === 'string' || Array.isArray(output) ? output : JSON.stringify(output ?? '');
    this.#messages.push({ role: 'tool', tool_call_id: id, content } as TolerantMessage);
  }

  #addReasoning(reasoning: string): void {
    if (this.#reply !== undefined && (this.#reply.content !== '' || this.#reply.calls.length > 0)) {
      this.#endReply(); // reasoning is always at the beginning of a reply
    }
    this.#openReply().reasoning += reasoning;
  }

  #addText(content: unknown): void {
    if (this.#reply !== undefined && this.#reply.content !== '' && this.#reply.calls.length === 0) {
      this.#endReply();
    }
    this.#openReply().content += tolerantText(content, 'a message of the assistant');
  }

  #addCall({ call_id: id, name, namespace }: Item, argumentsText: unknown): void {
    const group = typeof namespace === 'string' ? namespace : undefined;
    const toolName = typeof name === 'string' ? this.#tools.nameOf(name, group) : name;
    this.#openReply().calls.push({ id, type: 'function', function: { name: toolName, arguments: argumentsText } });
  }

  #openReply(): ReplyItems {
    this.#reply ??= { reasoning: '', content: '', calls: [] };
    return this.#reply;
  }

  #endReply(): void {
    if (this.#reply !== undefined) {
      const { reasoning, content, calls } = this.#reply;
      this.#messages.push({
        role: 'assistant',
        content,
        ...(reasoning !== '' && { reasoning_content: reasoning }),
        ...(calls.length > 0 && { tool_calls: calls }),
      });
      this.#reply = undefined;
    }
  }
}

/** The id of the earlier item to which an item refers; undefined if the item is not a reference. */
export function referenceOf(item: Item): string | undefined {
  const isReference = item.type === 'item_reference' || (!item.type && item.role === undefined);
  return isReference && typeof item.id === 'string' ? item.id : undefined;
}
