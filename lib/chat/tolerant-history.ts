// Reads the history of a stateless request tolerantly, because clients of other APIs send histories in many forms. A
// change depends only on the messages up to the changed one, so that the next request begins with the same tokens.
import { callId } from '../generate/tool-calls.js';
import { merged, withCalls } from '../prompt/fit-history.js';
import { type ChatMessage, callsOf, type ToolCall, type ToolMessage } from '../prompt/messages.js';
import { joined } from '../prompt/system-notes.js';
import type { Conversation } from './conversation.js';
import type { RequestMessage } from './message-input.js';
import { isSystemMessage, MessageReader } from './message-reader.js';

const NO_RESULT = '[no result]';

const reader = new MessageReader('tolerant');

/** The conversation of a request. */
export interface RequestConversation extends Conversation {
  /** For each of `messages`: the index of the message in the request that it was read from. */
  indices: readonly number[];
}

/** A message, and its index in the request. */
interface Entry {
  message: ChatMessage;
  index: number;
}

/**
 * Reads a whole conversation. The system messages at the beginning become the system prompt, up to the first volatile
 * one. Each call gets exactly one result: see {@link withOneResultEach}.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` if a message is not an object, has no known role, or has a call without a
 *   name. The error tells which message is wrong.
 */
export function readTolerantHistory(input: readonly RequestMessage[]): RequestConversation {
  const firstOther = input.findIndex(
    (message, index) => !isSystemMessage(message) || (index > 0 && isVolatile(message)),
  );
  const leading = firstOther < 0 ? input.length : firstOther;
  const systemTexts = input.slice(0, leading).map((message, index) => reader.systemText(message, `message ${index}`));
  const numbered = numberedCalls();
  const entries = Array.from(input.slice(leading), (message, index) => ({
    message: numbered(reader.message(message, `message ${leading + index}`)),
    index: leading + index,
  })).filter(({ message }) => message.role !== 'system' || message.content.trim() !== '');
  const written = withOneResultEach(entries);
  return {
    systemPrompt: leading === 0 ? undefined : joined(...systemTexts),
    messages: written.map(({ message }) => Object.freeze(message)),
    indices: written.map(({ index }) => index),
  };
}

function isVolatile(message: RequestMessage): boolean {
  return 'volatile' in message && message.volatile === true;
}

/** Returns a function that gives the calls without an id the number of the call as their id. */
function numberedCalls(): (message: ChatMessage) => ChatMessage {
  let count = 0;
  return (message) =>
    withCalls(message, (call) => {
      const toolCallId = callId(count++);
      return call.toolCallId === '' ? { ...call, toolCallId } : call;
    });
}

/**
 * Makes each call have one result, directly after its message and in the order of the calls. A missing result is
 * `[no result]`. A result without a call, and a further result of one call, become messages of the user. Replies in a
 * row become one reply if the first of them has calls.
 */
function withOneResultEach(entries: readonly Entry[]): Entry[] {
  const written: Entry[] = [];
  for (let at = 0; at < entries.length; ) {
    const entry = entries[at] as Entry;
    if (callsOf(entry.message).length === 0) {
      written.push(entry.message.role === 'tool' ? withoutCall(entry) : entry);
      at++;
      continue;
    }
    const endOfReplies = endOfRole('assistant', entries, at);
    const endOfResults = endOfRole('tool', entries, endOfReplies);
    const reply = entries.slice(at, endOfReplies).reduce(mergedEntry);
    const results = entries.slice(endOfReplies, endOfResults);
    const isLast = endOfReplies === entries.length;
    written.push(reply, ...(isLast ? [] : pairedResults(reply, results)));
    at = endOfResults;
  }
  return written;
}

/** The index after the messages of this role that begin at `start`. */
function endOfRole(role: ChatMessage['role'], entries: readonly Entry[], start: number): number {
  let end = start;
  while (entries[end]?.message.role === role) {
    end++;
  }
  return end;
}

function mergedEntry(first: Entry, second: Entry): Entry {
  return { ...first, message: merged(first.message, second.message) };
}

/** The result of each call, and then the results that belong to no call. */
function pairedResults({ message, index }: Entry, results: readonly Entry[]): Entry[] {
  const calls = callsOf(message);
  const byCall = new Map<ToolCall, Entry>();
  const others: Entry[] = [];
  for (const result of results) {
    const call = calls.find((each) => !byCall.has(each) && isResultOf(result.message as ToolMessage, each));
    if (call === undefined) {
      others.push(withoutCall(result));
    } else {
      byCall.set(call, result);
    }
  }
  const paired = calls.map((call): Entry => {
    const { toolCallId, toolName } = call;
    const result = byCall.get(call) ?? { index, message: { role: 'tool', toolCallId, content: NO_RESULT } };
    return { ...result, message: { toolName, ...(result.message as ToolMessage), toolCallId } };
  });
  return [...paired, ...others];
}

/** A result without an id belongs to the next call of its tool. */
function isResultOf(result: ToolMessage, { toolCallId, toolName }: ToolCall): boolean {
  return result.toolCallId === '' ? (result.toolName ?? toolName) === toolName : result.toolCallId === toolCallId;
}

/** A result as a message of the user, because many chat templates do not show a result without a call. */
function withoutCall({ message, index }: Entry): Entry {
  const { toolName, toolCallId: _, content, ...rest } = message as ToolMessage;
  const name = toolName === undefined ? '' : ` of ${toolName}`;
  return { index, message: { ...rest, role: 'user', content: `[tool result${name} without a call]\n${content}` } };
}
