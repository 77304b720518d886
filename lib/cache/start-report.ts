/** Where a session's start came from. */
export type Tier =
  /** Forked from a sequence in the same KV cache: nothing copied. */
  | 'resident'
  /** Restored from bytes kept in this process. */
  | 'memory'
  /** Restored from a file. */
  | 'disk'
  /** Prefilled, and kept for the next. */
  | 'miss'
  /** Prefilled, the cache left alone. */
  | 'bypass';

/** How one session's start went. */
export interface StartReport {
  /** Of a `prefix` match: where the reused tokens came from. */
  tier: Tier;
  /**
   * `exact`: the whole template was cached. `prefix`: the nearest cached template was the start, and the rest was prefilled; it
   * counts as a miss per request, and its tokens as reused. `none` for misses and bypasses.
   */
  match: 'exact' | 'prefix' | 'none';
  /** Tokens in the template. */
  templateTokens: number;
  /** Of those, tokens whose KV state was not computed again. */
  cachedTokens: number;
  /** Bytes of state that were read for this start; 0 for resident starts and prefills. */
  bytes: number;
  /** From the call to the template being ready in the sequence that generates. */
  ms: number;
  /** Of those, spent waiting for another start's or process's prefill of the same template. */
  waitedMs?: number;
  /** SHA-256 of the cache entry's key, hex; empty for a bypass. */
  key: string;
  /** Why nothing better was possible: for misses, prefix matches and bypasses. */
  reason?: string;
  /** Why the template just prefilled is not kept on disk, where that is known at once: it is larger than a budget. */
  notSaved?: string;
}
