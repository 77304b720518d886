import type { Sequence } from '../engine/sequence.js';
import type { Keyring } from './key.js';
import type { StartReport } from './start-report.js';

/** A request to bring a template into a sequence. */
export interface StartRequest {
  key: string;
  keyring: Keyring;
  /** A leased, empty sequence. */
  sequence: Sequence;
  tokens: Int32Array;
  /**
   * Ascending token counts inside the template. The prefill is cut after each of them, and each prefix is saved as a
   * separate entry.
   */
  breakpoints: readonly number[];
  /** Whether the template is one of a request with cache hints: see `HintPins`. */
  isHinted: boolean;
  signal: AbortSignal;
}

/** The result of filling a sequence. */
export interface Filled extends Pick<StartReport, 'source' | 'cache' | 'cachedTokens' | 'bytes'> {
  reason?: string;
  notSaved?: string;
  waitedMs?: number;
  /** Duration of a prefill of the whole template, ms. */
  prefillMs: number;
}
