// What a summary stands for, and what stays word for word. Turns, and the calls of a reply with their results, stay whole.
import type { ChatMessage } from '../../prompt/messages.js';

/** A conversation in two. */
export interface Cut {
  /** Older turns, oldest first. */
  turns: readonly ChatMessage[][];
  /** Older steps of the newest turn: a reply with the results of its calls each. */
  steps: readonly ChatMessage[][];
  /** What the newest turn began with, where `steps` are of it: it stays, and is there when they are summarised. */
  opening: readonly ChatMessage[];
  /** All that stays, `opening` first. */
  kept: readonly ChatMessage[];
}

/** Leaves so many of the newest turns; undefined where nothing is older. */
export function cutTurns(messages: readonly ChatMessage[], kept: number): Cut | undefined {
  const turns = turnsOf(messages);
  const at = turns.length - kept;
  return at <= 0 ? undefined : { turns: turns.slice(0, at), steps: [], opening: [], kept: turns.slice(at).flat() };
}

/**
 * Ways to cut a conversation whose newest turn goes on, the one that leaves most first: as many turns before it as are to be
 * preserved, then fewer, then fewer and fewer of its own steps. The newest step stays: the model has not seen its results.
 */
export function* cutsDuringTurn(
  messages: readonly ChatMessage[],
  preserveRecent: number,
): Generator<Cut, void, undefined> {
  const turns = turnsOf(messages);
  for (let before = Math.min(preserveRecent, turns.length - 2); before >= 0; before--) {
    yield cutTurns(messages, before + 1) as Cut;
  }
  const [opening, ...steps] = stepsOf(turns.pop() ?? []);
  for (let kept = steps.length >> 1; kept > 0 && opening !== undefined; kept >>= 1) {
    const at = steps.length - kept;
    yield { turns, steps: steps.slice(0, at), opening, kept: [...opening, ...steps.slice(at).flat()] };
  }
}

/** Messages that came in one go, and all that follows up to the next of the user's. */
export function turnsOf(messages: readonly ChatMessage[]): ChatMessage[][] {
  return splitMessages(messages, (message, previous) => message.role === 'user' && previous.role !== 'user');
}

/** What a turn began with, and then each reply with what follows it. */
function stepsOf(turn: readonly ChatMessage[]): ChatMessage[][] {
  return splitMessages(turn, (message) => message.role === 'assistant');
}

function splitMessages(
  messages: readonly ChatMessage[],
  begins: (message: ChatMessage, previous: ChatMessage) => boolean,
): ChatMessage[][] {
  const found: ChatMessage[][] = [];
  for (const [index, message] of messages.entries()) {
    const previous = messages[index - 1];
    if (previous === undefined || begins(message, previous)) {
      found.push([]);
    }
    found.at(-1)?.push(message);
  }
  return found;
}
