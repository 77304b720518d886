// Divides a conversation into a part to summarize and a part to keep. Never separates a tool call from its result.
import type { ChatMessage } from '../../prompt/messages.js';

/** A conversation, divided in two. */
export interface Cut {
  /** The older turns to summarize, the oldest first. */
  turns: readonly ChatMessage[][];
  /** The older steps of the newest turn to summarize. A step is a reply and the results of its calls. */
  steps: readonly ChatMessage[][];
  /**
   * If there are `steps`: the messages that began the newest turn. These messages are kept, and the prompt of the
   * summary also contains them.
   */
  opening: readonly ChatMessage[];
  /** The messages to keep, `opening` first. */
  kept: readonly ChatMessage[];
}

/** Returns the cut that keeps the newest `kept` turns. Undefined if there are no older turns. */
export function cutTurns(messages: readonly ChatMessage[], kept: number): Cut | undefined {
  const turns = turnsOf(messages);
  const at = turns.length - kept;
  return at <= 0 ? undefined : { turns: turns.slice(0, at), steps: [], opening: [], kept: turns.slice(at).flat() };
}

/**
 * Yields the possible cuts during a turn. The first cut keeps the most: the current turn, and `preserveRecent` turns
 * before it. Each following cut keeps fewer turns. The last cuts keep only some steps of the current turn. Every cut
 * keeps the newest step, because the model has not seen the results of this step yet.
 */
export function* cutsDuringTurn(
  messages: readonly ChatMessage[],
  preserveRecent: number,
): Generator<Cut, void, undefined> {
  const turns = turnsOf(messages);
  for (let older = Math.min(preserveRecent, turns.length - 2); older >= 0; older--) {
    yield cutTurns(messages, older + 1) as Cut;
  }
  const [opening, ...steps] = stepsOf(turns.pop() ?? []);
  for (let kept = steps.length >> 1; kept > 0 && opening !== undefined; kept >>= 1) {
    const at = steps.length - kept;
    yield { turns, steps: steps.slice(0, at), opening, kept: [...opening, ...steps.slice(at).flat()] };
  }
}

/**
 * Divides messages into turns. A turn consists of consecutive user messages and everything up to the next user message.
 */
export function turnsOf(messages: readonly ChatMessage[]): ChatMessage[][] {
  return splitMessages(messages, (message, previous) => message.role === 'user' && previous.role !== 'user');
}

/** Divides a turn into the messages that began it, and one step for each reply. */
function stepsOf(turn: readonly ChatMessage[]): ChatMessage[][] {
  return splitMessages(turn, (message) => message.role === 'assistant');
}

function splitMessages(
  messages: readonly ChatMessage[],
  begins: (message: ChatMessage, previous: ChatMessage) => boolean,
): ChatMessage[][] {
  const parts: ChatMessage[][] = [];
  for (const [index, message] of messages.entries()) {
    const previous = messages[index - 1];
    if (previous === undefined || begins(message, previous)) {
      parts.push([]);
    }
    parts.at(-1)?.push(message);
  }
  return parts;
}
