import type { Decoded } from '../engine/decode-request.js';
import type { Sampler } from '../native/sampler.js';

/** How the token after a text is chosen. */
export interface TokenChoice {
  /** @default greedy */
  sampler?: Sampler | undefined;
  signal: AbortSignal;
  /** How many of the most likely tokens to return. @default 0 */
  logProbabilities?: number | undefined;
  /** Return the logits after the text. @default false */
  logits?: boolean | undefined;
}

/** What generating a reply needs of the sequence that holds the conversation. */
export interface ReplySequence {
  /**
   * Makes the sequence hold the longest prefix of `prompt` that it can get cheaply, at least one token short of all of it.
   *
   * @returns how many of those tokens were not computed for this call
   */
  align(prompt: Int32Array, signal: AbortSignal): Promise<number>;
  /** Decodes what the sequence lacks of a text, and picks the token after it. */
  decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded>;
  /**
   * Decodes what the sequence lacks of the beginning of a prompt, and keeps a checkpoint there.
   *
   * @param beginsTurn whether the prompt is the first of its turn
   */
  keepCheckpoint(beginning: Int32Array, beginsTurn: boolean, signal: AbortSignal): Promise<void>;
  /** Releases the sequence if a failure left it in an unknown state. */
  afterFailure(): void;
}
