import type { Sequence } from '../engine/sequence.js';
import { prefixOfAtLeast } from '../tokens.js';
import type { PrefixQuery } from './prefix-index.js';

interface Prompt {
  group: string;
  tokens: Int32Array;
  /** Number of tokens at the start that are not decoded, because the sequence loads them. */
  available: number;
  /** Resolves when the prompt was decoded or has failed. */
  ended: Promise<void>;
  end(): void;
}

/** A wait may take this many times as long as decoding the tokens that it saves. */
const MAX_WAIT_FACTOR = 2;

/**
 * The prompts that are being loaded or decoded now. Another prompt with the same beginning can wait until one of these
 * prompts was decoded, and then fork the sequence of that prompt.
 */
export class PromptsInProgress {
  readonly #prompts = new Map<Sequence, Prompt>();

  /**
   * Registers the prompt of a sequence. Call {@link end} when the prompt was decoded or has failed.
   *
   * @param available number of tokens that the sequence need not decode
   */
  begin(sequence: Sequence, tokens: Int32Array, available: number): void {
    this.end(sequence);
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#prompts.set(sequence, { group: sequence.group, tokens, available, ended, end });
  }

  /** Removes the prompt of a sequence, and lets the prompts that wait for it continue. Idempotent. */
  end(sequence: Sequence): void {
    const prompt = this.#prompts.get(sequence);
    if (prompt !== undefined) {
      this.#prompts.delete(sequence);
      prompt.end();
    }
  }

  /**
   * Finds a prompt that is worth waiting for.
   *
   * @param available number of tokens that are available without a wait
   * @param minimumGain how many tokens the wait must save
   * @returns a promise that resolves when the prompt was decoded or has failed; undefined if there is no such prompt
   */
  worthWaitingFor({ group, tokens }: PrefixQuery, available: number, minimumGain: number): Promise<void> | undefined {
    for (const [sequence, prompt] of this.#prompts) {
      if (prompt.group === group) {
        const saved = prefixOfAtLeast(available + minimumGain, prompt.tokens, tokens) - available;
        const remaining = prompt.tokens.length - Math.max(prompt.available, sequence.length);
        if (saved > 0 && remaining <= MAX_WAIT_FACTOR * saved) {
          return prompt.ended;
        }
      }
    }
    return undefined;
  }
}
