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

/** How much of the template was cached at a start. */
export type CacheOutcome =
  /** The whole template was cached. */
  | 'hit'
  /**
   * The first part of the template was cached. The rest was prefilled. The start counts as a miss, and its cached
   * tokens count as reused.
   */
  | 'prefix'
  /** No part of the template was cached. The template was prefilled, and is kept for later starts. */
  | 'miss'
  /** The cache was not used. */
  | 'bypass';

/** The values of `tier`, the name of earlier versions. @deprecated Use {@link StateSource} and {@link CacheOutcome}. */
export type Tier = 'resident' | 'memory' | 'disk' | 'miss' | 'bypass';

/** The report of one start. */
export interface StartReport {
  /** The source of the template's state. For `cache: 'prefix'`, the source of the reused part. */
  source: StateSource;
  /** Whether the template was in the cache. */
  cache: CacheOutcome;
  /** `source`, or `miss` or `bypass` for a prefill. @deprecated Use `source` and `cache`. */
  tier: Tier;
  /** `exact` for `cache: 'hit'`, `prefix` for `cache: 'prefix'`, else `none`. @deprecated Use `cache`. */
  match: 'exact' | 'prefix' | 'none';
  /** Tokens in the template. */
  templateTokens: number;
  /** The template tokens whose KV state was not computed again. */
  cachedTokens: number;
  /** Bytes of state that were read for this start; 0 for resident starts and prefills. */
  bytes: number;
  /** Milliseconds from the call until the template was in the session's sequence. */
  ms: number;
  /**
   * The part of `ms` in which the start waited for another start or process that prefilled the same template, or for
   * another start whose template has the same beginning.
   */
  waitedMs?: number;
  /** The key of the cache entry: SHA-256, hex. Empty for a bypass. */
  key: string;
  /** Why no better start was possible: for misses, prefix starts and bypasses. */
  reason?: string;
  /**
   * Why the prefilled template is not saved: the template is larger than a budget. Saves that fail later are not
   * reported here.
   */
  notSaved?: string;
}

/** Adds the deprecated fields `tier` and `match`. */
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
