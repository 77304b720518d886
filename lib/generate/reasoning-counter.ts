import type { ReplyReader } from './reply-reader.js';
import type { UsageCounter } from './usage-counter.js';

/**
 * Counts the tokens of one reply that belong to reasoning. A token counts for the part that it made longer. A token
 * that made none longer (markup, part of a character) counts for the part that grows next.
 */
export class ReasoningCounter {
  readonly #reader: Pick<ReplyReader, 'lengths'>;
  readonly #usage: UsageCounter;
  #tokens: number;
  #reasoning = 0;
  #other = 0;

  constructor(reader: Pick<ReplyReader, 'lengths'>, usage: UsageCounter) {
    this.#reader = reader;
    this.#usage = usage;
    this.#tokens = usage.outputTokens;
  }

  /** Counts the tokens since the last call. Call it each time after the reader has read more. */
  update(): void {
    const { reasoning, other } = this.#reader.lengths;
    const newReasoning = reasoning - this.#reasoning;
    const newOther = other - this.#other;
    if (newReasoning + newOther === 0) {
      return;
    }
    const tokens = this.#usage.outputTokens - this.#tokens;
    // A long reply is read several tokens at a time. If reasoning ends among them, its share of their characters
    // counts.
    this.#usage.reasoning(Math.round((tokens * newReasoning) / (newReasoning + newOther)));
    this.#tokens += tokens;
    this.#reasoning = reasoning;
    this.#other = other;
  }
}
