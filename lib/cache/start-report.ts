/** Where a KV state came from. */
export type StateSource =
  /** Forked from a sequence of the same KV cache; nothing is copied. */
  | 'resident'
  /** Restored from memory of this process. */
  | 'memory'
  /** Restored from a file. */
  | 'disk'
  /** Computed. */
  | 'prefill';

/** What the template cache had for a start. */
export type CacheOutcome =
  /** The whole template. */
  | 'hit'
  /** The first part of the template: the rest was prefilled. Counts as a miss, and its tokens as reused. */
  | 'prefix'
  /** Nothing: the template was prefilled, and is kept for the next start. */
  | 'miss'
  /** The cache was not used. */
  | 'bypass';

/** The values of `tier`, the name of earlier versions. @deprecated Use {@link StateSource} and {@link CacheOutcome}. */
export type Tier = 'resident' | 'memory' | 'disk' | 'miss' | 'bypass';

/** How one session's start went. */
export interface StartReport {
  /** Where the template's state came from; for a `prefix` start, where the reused part came from. */
  source: StateSource;
  /** Whether the template was in the cache. */
  cache: CacheOutcome;
  /** `source`, or `miss` or `bypass` for a prefill. @deprecated Use `source` and `cache`. */
  tier: Tier;
  /** `exact` for `cache: 'hit'`, `prefix` for `cache: 'prefix'`, else `none`. @deprecated Use `cache`. */
  match: 'exact' | 'prefix' | 'none';
  /** Tokens in the template. */
  templateTokens: number;
  /** Of those, tokens whose KV state was not computed again. */
  cachedTokens: number;
  /** Bytes of state that were read for this start; 0 for resident starts and prefills. */
  bytes: number;
  /** Milliseconds from the call until the template was in the sequence that generates. */
  ms: number;
  /** Of those, milliseconds of waiting for another start or process that prefilled the same template. */
  waitedMs?: number;
  /** SHA-256 of the cache entry's key, hex; empty for a bypass. */
  key: string;
  /** Why no better start was possible: for misses, prefix starts and bypasses. */
  reason?: string;
  /** Why the prefilled template is not saved, if that is known at once: it is larger than a budget. */
  notSaved?: string;
}

/** Adds the fields that earlier versions had. */
export function startReport(report: Omit<StartReport, 'tier' | 'match'>): StartReport {
  const { source, cache } = report;
  const match = cache === 'hit' ? 'exact' : cache === 'prefix' ? 'prefix' : 'none';
  return { ...report, tier: tierOf(source, cache), match };
}

export function tierOf(source: StateSource, cache: CacheOutcome): Tier {
  if (source !== 'prefill') {
    return source;
  }
  return cache === 'bypass' ? 'bypass' : 'miss';
}
