import type { ReplyReader } from './reply-reader.js';
import type { UsageCounter } from './usage-counter.js';

/**
 * Counts the tokens of one reply that belong to reasoning. A reply has two parts: the reasoning, and the rest (text and
 * tool calls). A token counts for the part that it makes longer. A token of markup or an incomplete character makes
 * neither part longer: it counts for the part that grows next.
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

  /** Counts the tokens since the last call. Call it after each time the reader has read more of the reply. */
  update(): void {
    const { reasoning, other } = this.#reader.lengths;
    const newReasoning = reasoning - this.#reasoning;
    const newOther = other - this.#other;
    if (newReasoning + newOther === 0) {
      return;
    }
    const tokens = this.#usage.outputTokens - this.#tokens;
    // The reader reads a long reply several tokens at a time. If the reasoning ends among these tokens, divide them in
    // proportion to the number of characters by which each part grew.
    this.#usage.reasoning(Math.round((tokens * newReasoning) / (newReasoning + newOther)));
    this.#tokens += tokens;
    this.#reasoning = reasoning;
    this.#other = other;
  }
}
