import type { Engine } from '../engine/engine.js';
import type { Arrival } from '../engine/overtaking.js';
import type { StateKind } from '../engine/state-store.js';
import type { PrefixCache } from './prefix-cache.js';

/** What the prompts of a conversation may reuse, and how their tokens are kept. */
export interface PrefixSetup {
  engine: Engine;
  cache: PrefixCache;
  /** How long the sequence's contents are worth keeping. @default 'conversation' */
  kind?: StateKind | undefined;
  /** The template's tokens; empty if there is no template. */
  template: Int32Array;
  /** Why `template` is empty. */
  templateReason?: string | undefined;
  /** Whether the sequence may start from the template cache and from other conversations. */
  useCache: boolean;
  /** Only cache entries of this tenant are used. */
  tenant?: string | undefined;
  /** See `Sequence.affinity`. */
  affinity?: string | undefined;
  /** See `Sequence.epoch`. @default the number of calls of `forget` so far */
  epoch?: number | undefined;
  /** See `SequenceOptions.arrival`. */
  arrival?: Arrival | undefined;
  /** Token counts at which the template's prefill is split, so that its prefixes can be kept. */
  breakpoints?: readonly number[] | undefined;
  /** Whether a request with cache hints needs the template: see `HintPins`. @default false */
  isHinted?: boolean | undefined;
}
