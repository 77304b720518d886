import type { ReplyToolCall } from '../native/reply.js';
import type { ToolCall } from '../prompt/messages.js';
import type { StreamPart } from './stream-parts.js';
import { argumentsText, type CallIds, toToolCall } from './tool-calls.js';

type ToolInputPart = Extract<StreamPart, { type: 'tool-input-start' | 'tool-input-delta' }>;

/** A complete call, and those of its parts that were not sent yet. */
export interface FinishedCall {
  call: ToolCall;
  parts: readonly ToolInputPart[];
}

/** A call whose `tool-input-start` was sent. */
interface StartedCall {
  toolCallId: string;
  name: string;
  /** The arguments sent so far. */
  sent: string;
  /** Whether a later parse of the reply contradicts the sent parts. If so, no more parts are sent for this id. */
  isVoid: boolean;
}

/**
 * Streams the arguments of a reply's calls while the model writes them. A part cannot be withdrawn once it is sent.
 * Therefore a name, or a character of the arguments, is sent only after two parses of the growing reply agree on it. If
 * the complete reply still contradicts the sent parts, the call gets a new id, and its arguments are sent again with
 * that id.
 */
export class ToolInputs {
  readonly #ids: CallIds;
  /** Whether the model may write ids. If so, a call starts only when its id is complete or the reply has ended. */
  readonly #hasWrittenIds: boolean;
  readonly #maxCalls: number;
  readonly #started: StartedCall[] = [];
  /** The calls at the last parse. */
  #last: readonly ReplyToolCall[] = [];

  /** @param maxCalls maximum number of calls. Later calls are left out of the reply. */
  constructor(ids: CallIds, { hasWrittenIds, maxCalls }: { hasWrittenIds: boolean; maxCalls: number }) {
    this.#ids = ids;
    this.#hasWrittenIds = hasWrittenIds;
    this.#maxCalls = maxCalls;
  }

  /**
   * Returns the parts that have become certain.
   *
   * @param calls the calls of the reply so far. The same array as before if the reply was not parsed again.
   */
  read(calls: readonly ReplyToolCall[]): ToolInputPart[] {
    const last = this.#last;
    if (calls === last) {
      return [];
    }
    this.#last = calls;
    const parts: ToolInputPart[] = [];
    for (let index = 0; index < Math.min(calls.length, last.length, this.#maxCalls); index++) {
      const [before, now] = [last[index] as ReplyToolCall, calls[index] as ReplyToolCall];
      if (!this.#mayStart(index, before, now)) {
        break; // ids are assigned in the order of the calls
      }
      const started = this.#started[index] ?? this.#start(now, parts);
      started.isVoid ||= started.name !== now.name || !now.arguments.startsWith(started.sent);
      if (!started.isVoid) {
        this.#send(started, commonStart(before.arguments, now.arguments), parts);
      }
      this.#started[index] = started;
    }
    return parts;
  }

  /**
   * Ends the reply.
   *
   * @param calls all calls of the reply
   */
  finish(calls: readonly ReplyToolCall[]): FinishedCall[] {
    return calls.map((written, index) => {
      const parts: ToolInputPart[] = [];
      const json = argumentsText(written);
      const earlier = this.#started[index];
      const isGood = earlier !== undefined && !earlier.isVoid && earlier.name === written.name;
      const started = isGood && json.startsWith(earlier.sent) ? earlier : this.#start(written, parts);
      this.#send(started, json, parts);
      return { call: toToolCall(started.toolCallId, written), parts };
    });
  }

  #mayStart(index: number, before: ReplyToolCall, now: ReplyToolCall): boolean {
    return this.#started[index] !== undefined || (before.name === now.name && (now.id !== '' || !this.#hasWrittenIds));
  }

  #start({ id, name }: ReplyToolCall, parts: ToolInputPart[]): StartedCall {
    const toolCallId = this.#ids.next(id);
    parts.push({ type: 'tool-input-start', toolCallId, toolName: name });
    return { toolCallId, name, sent: '', isVoid: false };
  }

  /** @param json the arguments up to now */
  #send(started: StartedCall, json: string, parts: ToolInputPart[]): void {
    if (json.length > started.sent.length) {
      const delta = json.slice(started.sent.length);
      parts.push({ type: 'tool-input-delta', toolCallId: started.toolCallId, delta });
      started.sent = json;
    }
  }
}

/** The common prefix of two texts, in whole characters. */
function commonStart(one: string, other: string): string {
  let length = 0;
  while (length < one.length && one[length] === other[length]) {
    length++;
  }
  const isCut = /[\ud800-\udbff]/.test(one.charAt(length - 1));
  return one.slice(0, isCut ? length - 1 : length);
}
