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
  tier: Tier;
  /** Tokens in the template. */
  templateTokens: number;
  /** Of those, tokens whose KV state was not computed again. */
  cachedTokens: number;
  /** Bytes of state that were read for this start; 0 for resident starts and prefills. */
  bytes: number;
  /** From the call to the template being ready in the sequence that generates. */
  ms: number;
  /** SHA-256 of the cache entry's key, hex; empty for a bypass. */
  key: string;
  /** Why nothing better was possible: for misses and bypasses. */
  reason?: string;
}

/** Totals. `entries` and `totalTokens` count the cache directory, or what this process holds where there is none. */
export interface TemplateCacheStats {
  entries: number;
  totalTokens: number;
  /** Starts from `resident`, `memory` or `disk`, counted once the state was in the sequence. Since the cache was opened. */
  hits: number;
  misses: number;
  /** hits / (hits + misses), 0 to 1; 0 before the first start. */
  hitRate: number;
  hitsByTier: { resident: number; memory: number; disk: number };
  bypasses: number;
  /** Entries set aside because they were damaged. */
  corruptions: number;
  saves: number;
  /** Saves that failed: disk full, directory not writable. */
  failedSaves: number;
  /** Sessions whose prompt turned out not to begin with the template they had started from. */
  prefixMismatches: number;
  bytesOnDisk: number;
  bytesInMemory: number;
  residentTemplates: number;
}

/** Counts what happens; sizes are asked of the stores. */
export class StatsCounter {
  readonly hitsByTier = { resident: 0, memory: 0, disk: 0 };
  misses = 0;
  bypasses = 0;
  corruptions = 0;
  saves = 0;
  failedSaves = 0;
  prefixMismatches = 0;

  count(tier: Tier): void {
    if (tier === 'miss') {
      this.misses++;
    } else if (tier === 'bypass') {
      this.bypasses++;
    } else {
      this.hitsByTier[tier]++;
    }
  }

  get hits(): number {
    return this.hitsByTier.resident + this.hitsByTier.memory + this.hitsByTier.disk;
  }

  get hitRate(): number {
    const requests = this.hits + this.misses;
    return requests === 0 ? 0 : this.hits / requests;
  }
}
