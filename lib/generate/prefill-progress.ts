import type { DecodeListener } from '../engine/sequence-contents.js';

/** How much of a prompt has been read. */
export interface PrefillProgress {
  /** Number of tokens of the prompt. */
  total: number;
  /** Prompt tokens that were reused. Part of `processed`. */
  cached: number;
  /** Prompt tokens that are in the sequence now. */
  processed: number;
  /** Milliseconds since the request began to look for a reusable prefix. */
  ms: number;
}

/** Reports the progress of one prompt. */
export class PrefillMeter {
  readonly #total: number;
  readonly #onPrefill: (progress: PrefillProgress) => void;
  readonly #begin = performance.now();
  /** The tokens in the sequence that this request decoded. */
  #decoded = 0;
  #failure: { error: unknown } | undefined;

  constructor(total: number, onPrefill: (progress: PrefillProgress) => void) {
    this.#total = total;
    this.#onPrefill = onPrefill;
  }

  /** Listens to the decodes. Never throws, because a decode belongs to other requests too. */
  readonly report: DecodeListener = (length, decoded) => {
    this.#decoded = Math.min(this.#decoded + decoded, length); // a preempted sequence begins again
    try {
      const ms = performance.now() - this.#begin;
      this.#onPrefill({ total: this.#total, cached: length - this.#decoded, processed: length, ms });
    } catch (error) {
      this.#failure ??= { error };
    }
  };

  /** Call it when the longest prefix is loaded. */
  onLoaded(cachedTokens: number): void {
    if (this.#decoded === 0) {
      this.report(cachedTokens, 0); // otherwise the decodes of the template have been reported
    }
  }

  /** Throws the first error of the program's function. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) {
      throw this.#failure.error;
    }
  }
}
