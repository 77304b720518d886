// Builds the items of a response from the parts of a stream, and describes each step as an event.
import type { StreamPart } from '../../generate/stream-parts.js';
import type { ServerEvent } from '../http/reply-events.js';
import type { Item } from './items.js';
import { encodedReasoning } from './reasoning.js';
import type { ClientTool, ResponseTools } from './response-tools.js';

/** Makes an event of a response. */
export type MakeEvent = (type: string, fields: object) => ServerEvent;

type Status = 'in_progress' | 'completed' | 'incomplete';
type TextKind = 'message' | 'reasoning';

/** An item that the model is writing. */
interface OpenItem {
  id: string;
  index: number;
  /** The text or the arguments so far. */
  text: string;
}

interface OpenCall extends OpenItem {
  callId: string;
  tool: ClientTool;
}

const TEXT_EVENTS = { message: 'response.output_text', reasoning: 'response.reasoning_text' } as const;

/** The items of one response. Only one item with text is open at a time. */
export class OutputItems {
  readonly #responseId: string;
  readonly #tools: ResponseTools;
  readonly #event: MakeEvent;
  readonly #encodesReasoning: boolean;
  /** The finished items, by their index. A call that was cut off is never finished. */
  readonly #finished = new Map<number, Item>();
  readonly #calls = new Map<string, OpenCall>();
  #text: (OpenItem & { kind: TextKind }) | undefined;
  #count = 0;

  /** @param responseId a part of the ids of the items */
  constructor(responseId: string, tools: ResponseTools, event: MakeEvent, encodesReasoning: boolean) {
    this.#responseId = responseId;
    this.#tools = tools;
    this.#event = event;
    this.#encodesReasoning = encodesReasoning;
  }

  /** The finished items, in order. */
  get finished(): Item[] {
    return [...this.#finished].sort(([a], [b]) => a - b).map(([, item]) => item);
  }

  add(part: StreamPart): ServerEvent[] {
    switch (part.type) {
      case 'text-delta':
        return this.#addText('message', part.text);
      case 'reasoning-delta':
        return this.#addText('reasoning', part.text);
      case 'tool-input-start':
        return [...this.#endText('completed'), this.#beginCall(part.toolCallId, part.toolName)];
      case 'tool-input-delta':
        return this.#continueCall(part.toolCallId, part.delta);
      case 'tool-call':
        return this.#endCall(part.toolCallId);
      default:
        return [];
    }
  }

  /** Ends the open item. A response has at least one item. @param status the status of the open item */
  end(status: Status): ServerEvent[] {
    const isEmpty = this.#finished.size === 0 && this.#text === undefined;
    return [...(isEmpty ? this.#beginText('message') : []), ...this.#endText(status)];
  }

  #addText(kind: TextKind, delta: string): ServerEvent[] {
    const begin = this.#text?.kind === kind ? [] : [...this.#endText('completed'), ...this.#beginText(kind)];
    const open = this.#text as OpenItem;
    open.text += delta;
    return [...begin, this.#textEvent(`${TEXT_EVENTS[kind]}.delta`, open, { delta })];
  }

  #beginText(kind: TextKind): ServerEvent[] {
    const open = { ...this.#nextItem(kind === 'message' ? 'msg' : 'rs'), kind };
    this.#text = open;
    return [
      this.#itemEvent('added', open, this.#textItem(kind, open, [], 'in_progress')),
      this.#textEvent('response.content_part.added', open, { part: textPart(kind, '') }),
    ];
  }

  #endText(status: Status): ServerEvent[] {
    const open = this.#text;
    if (open === undefined) {
      return [];
    }
    this.#text = undefined;
    const { kind, text } = open;
    const part = textPart(kind, text);
    return [
      this.#textEvent(`${TEXT_EVENTS[kind]}.done`, open, { text }),
      this.#textEvent('response.content_part.done', open, { part }),
      this.#finish(open, this.#textItem(kind, open, [part], status)),
    ];
  }

  #textItem(kind: TextKind, { id, text }: OpenItem, content: object[], status: Status): Item {
    return kind === 'message'
      ? { id, type: 'message', status, role: 'assistant', content }
      : {
          id,
          type: 'reasoning',
          status,
          summary: [],
          content,
          ...(this.#encodesReasoning && { encrypted_content: encodedReasoning(text) }),
        };
  }

  #textEvent(type: string, { id, index }: OpenItem, fields: object): ServerEvent {
    const logprobs = type.startsWith('response.output_text') ? { logprobs: [] } : {};
    return this.#event(type, { item_id: id, output_index: index, content_index: 0, ...fields, ...logprobs });
  }

  #beginCall(callId: string, toolName: string): ServerEvent {
    const tool = this.#tools.clientToolOf(toolName);
    const call = { ...this.#nextItem(tool.kind === 'custom' ? 'ctc' : 'fc'), callId, tool };
    this.#calls.set(callId, call);
    return this.#itemEvent('added', call, callItem(call, '', 'in_progress'));
  }

  #continueCall(callId: string, delta: string): ServerEvent[] {
    const call = this.#calls.get(callId) as OpenCall;
    call.text += delta;
    return call.tool.kind === 'custom' ? [] : [this.#callEvent('function_call_arguments.delta', call, { delta })];
  }

  #endCall(callId: string): ServerEvent[] {
    const call = this.#calls.get(callId) as OpenCall;
    const { tool, text } = call;
    if (tool.kind === 'custom') {
      const input = inputOf(text);
      return [
        this.#callEvent('custom_tool_call_input.delta', call, { delta: input }),
        this.#callEvent('custom_tool_call_input.done', call, { input }),
        this.#finish(call, callItem(call, input, 'completed')),
      ];
    }
    return [
      this.#callEvent('function_call_arguments.done', call, { name: tool.name, arguments: text }),
      this.#finish(call, callItem(call, text, 'completed')),
    ];
  }

  #callEvent(type: string, { id, index }: OpenItem, fields: object): ServerEvent {
    return this.#event(`response.${type}`, { item_id: id, output_index: index, ...fields });
  }

  #nextItem(prefix: string): OpenItem {
    const index = this.#count++;
    return { id: `${prefix}_${this.#responseId}_${index}`, index, text: '' };
  }

  #finish(open: OpenItem, item: Item): ServerEvent {
    this.#finished.set(open.index, item);
    return this.#itemEvent('done', open, item);
  }

  #itemEvent(what: 'added' | 'done', { index }: OpenItem, item: Item): ServerEvent {
    return this.#event(`response.output_item.${what}`, { output_index: index, item });
  }
}

/** The id of the response that has an item with this id. */
export function responseIdOf(itemId: string): string | undefined {
  return /^[a-z]+_([0-9a-f]{32})_\d+$/.exec(itemId)?.[1];
}

function textPart(kind: TextKind, text: string): object {
  return kind === 'message'
    ? { type: 'output_text', text, annotations: [], logprobs: [] }
    : { type: 'reasoning_text', text };
}

function callItem({ id, callId, tool: { kind, name, namespace } }: OpenCall, text: string, status: Status): Item {
  return {
    id,
    type: kind === 'custom' ? 'custom_tool_call' : 'function_call',
    status,
    call_id: callId,
    name,
    ...(namespace !== undefined && { namespace }),
    [kind === 'custom' ? 'input' : 'arguments']: text,
  };
}

/** The text for a custom tool, from the arguments that the model wrote. */
function inputOf(json: string): string {
  try {
    const { input } = JSON.parse(json) as { input?: unknown };
    return typeof input === 'string' ? input : json;
  } catch {
    return json;
  }
}
