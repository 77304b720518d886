import type { LoadedPrefix } from '../cache/loaded-prefix.js';
import type { Decoded } from '../engine/decode-request.js';
import type { DecodeListener } from '../engine/sequence-contents.js';
import type { Sampler } from '../native/sampler.js';

/** How the next token is chosen. */
export interface TokenChoice {
  /** @default greedy */
  sampler?: Sampler | undefined;
  signal: AbortSignal;
  /** How many of the most likely tokens to return. @default 0 */
  logProbabilities?: number | undefined;
  /** Whether to return the logits after the last token. @default false */
  logits?: boolean | undefined;
}

/** The operations of a conversation's sequence that `Generation` needs. */
export interface ReplySequence {
  /**
   * Makes the sequence hold the longest prefix of `prompt` that can be loaded. The prefix never includes the prompt's
   * last token.
   *
   * @returns how many tokens of the prefix were cached, and not computed for this call, and why not more
   */
  align(prompt: Int32Array, signal: AbortSignal): Promise<LoadedPrefix>;
  /** Sets the function that is called after each decode of these tokens. It must not throw. */
  setDecodeListener(listener: DecodeListener | undefined): void;
  /** Decodes the tokens that the sequence does not hold yet, and chooses the next token. */
  decode(tokensFrom: (position: number) => Int32Array, choice: TokenChoice): Promise<Decoded>;
  /**
   * Decodes those tokens of `beginning` that the sequence does not hold yet, and then keeps a checkpoint.
   *
   * @param beginning the first tokens of a prompt
   * @param beginsTurn whether the prompt is the first of its turn
   */
  keepCheckpoint(beginning: Int32Array, beginsTurn: boolean, signal: AbortSignal): Promise<void>;
  /** Releases the sequence if a failure left it in an unknown state. */
  afterFailure(): void;
}
