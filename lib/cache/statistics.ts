import type { StartReport } from './start-report.js';

/** Counts of one process since its cache was opened, or of all processes on a directory. */
export interface TemplateCacheCounts {
  /** Starts whose whole template came from `resident`, `memory` or `disk`, counted once the state was in the sequence. */
  hits: number;
  /** Starts that prefilled, those that began from a nearer template included. */
  misses: number;
  /** Of the misses, those that began from the nearest cached template. */
  prefixStarts: number;
  /** Starts that left the cache alone. */
  bypasses: number;
  /** Template tokens of all starts but bypasses. */
  requestedTokens: number;
  /** Of those, tokens whose KV state was not computed again. */
  reusedTokens: number;
  /** Entries set aside because they were damaged. */
  corruptions: number;
  /** Entries written to the directory. */
  saves: number;
  /** Saves that failed: disk full, directory not writable. */
  failedSaves: number;
  /** Templates not saved because they are larger than a budget. */
  oversized: number;
  /** Sessions whose prompt turned out not to begin with the template they had started from. */
  prefixMismatches: number;
  /** Starts that waited for another's prefill of the same template. */
  waits: number;
  /** What the prefills that were not needed took when they were done, ms. */
  prefillMsSaved: number;
}

/**
 * Counts and sizes. `entries`, `totalTokens` and `bytesOnDisk` are the cache directory's, all configurations' entries included:
 * right straight after a restart and after what this process saves and deletes, and within seconds (a look every two) after
 * what other processes do; `list()`, `verify()` and `prune()` look at once. Without a directory the first two count what this
 * process holds.
 */
export interface TemplateCacheStats extends TemplateCacheCounts {
  /** Cached templates. */
  entries: number;
  /** Tokens in them. */
  totalTokens: number;
  /** hits / (hits + misses), 0 to 1; 0 before the first start. */
  hitRate: number;
  /** reusedTokens / requestedTokens, 0 to 1; 0 before the first start. */
  tokenHitRate: number;
  /** Hits by where their state came from. */
  hitsByTier: {
    /** Forked from a sequence. */
    resident: number;
    /** Restored from memory. */
    memory: number;
    /** Read from a file. */
    disk: number;
  };
  /** Bytes of state restored. */
  bytesByTier: {
    /** From memory. */
    memory: number;
    /** From files. */
    disk: number;
  };
  /** Entries that left for a budget or for others' sake. */
  evictions: {
    /** From the KV cache. */
    resident: number;
    /** From memory. */
    memory: number;
    /** From the directory. */
    disk: number;
  };
  /** Of hits from `memory` and `disk`, the newest 1,024: from call to ready, ms; 0 before the first. */
  restoreMs: {
    /** Their mean. */
    mean: number;
    /** Their median. */
    p50: number;
    /** Their 99th percentile. */
    p99: number;
  };
  /** What copying states out, to save them, kept the context waiting: in all, ms. */
  saveBlockedMs: number;
  /** Bytes of the directory's entries; 0 without a directory. */
  bytesOnDisk: number;
  /** Bytes of states in this process, outside the JavaScript heap. */
  bytesInMemory: number;
  /** Templates in sequences of the KV cache, ready to be forked. */
  residentTemplates: number;
  /** KV cells that resident templates hold. */
  residentCells: number;
  /** Of the directory: all processes, over all restarts. Written with saves and at close. Absent without a directory. */
  totals?: TemplateCacheCounts;
  /** What its owner should know: the directory has grown large. */
  warning?: string;
}

const MAX_SAMPLES = 1024;

export const NO_COUNTS: Readonly<TemplateCacheCounts> = Object.freeze({
  hits: 0,
  misses: 0,
  prefixStarts: 0,
  bypasses: 0,
  requestedTokens: 0,
  reusedTokens: 0,
  corruptions: 0,
  saves: 0,
  failedSaves: 0,
  oversized: 0,
  prefixMismatches: 0,
  waits: 0,
  prefillMsSaved: 0,
});

/** Counts what happens; sizes are asked of the stores. */
export class StatsCounter {
  readonly counts: TemplateCacheCounts = { ...NO_COUNTS };
  readonly hitsByTier = { resident: 0, memory: 0, disk: 0 };
  readonly bytesByTier = { memory: 0, disk: 0 };
  readonly evictions = { resident: 0, memory: 0, disk: 0 };
  readonly #restoreMs: number[] = [];
  #restores = 0;

  /** @param prefillMs what the reused state took to compute */
  record(report: StartReport, prefillMs: number): void {
    const { counts } = this;
    const { source, cache } = report;
    counts.waits += report.waitedMs === undefined ? 0 : 1;
    if (cache === 'bypass') {
      counts.bypasses++;
      return;
    }
    counts.requestedTokens += report.templateTokens;
    counts.reusedTokens += report.cachedTokens;
    counts.prefillMsSaved += prefillMs;
    if (source === 'memory' || source === 'disk') {
      this.bytesByTier[source] += report.bytes;
    }
    if (cache !== 'hit' || source === 'prefill') {
      counts.misses++;
      counts.prefixStarts += cache === 'prefix' ? 1 : 0;
      return;
    }
    counts.hits++;
    this.hitsByTier[source]++;
    if (source !== 'resident') {
      this.#restoreMs[this.#restores++ % MAX_SAMPLES] = report.ms - (report.waitedMs ?? 0);
    }
  }

  get hitRate(): number {
    return ratio(this.counts.hits, this.counts.hits + this.counts.misses);
  }

  get tokenHitRate(): number {
    return ratio(this.counts.reusedTokens, this.counts.requestedTokens);
  }

  get restoreMs(): { mean: number; p50: number; p99: number } {
    const sorted = [...this.#restoreMs].sort((a, b) => a - b);
    const at = (quantile: number) => sorted[Math.ceil(quantile * sorted.length) - 1] ?? 0;
    const sum = sorted.reduce((total, ms) => total + ms, 0);
    return { mean: ratio(sum, sorted.length), p50: at(0.5), p99: at(0.99) };
  }
}

/** `a` + `sign` x `b`, count by count. */
export function addCounts(a: TemplateCacheCounts, b: TemplateCacheCounts, sign: 1 | -1 = 1): TemplateCacheCounts {
  const names = Object.keys(NO_COUNTS) as (keyof TemplateCacheCounts)[];
  return Object.fromEntries(names.map((name) => [name, a[name] + sign * b[name]])) as unknown as TemplateCacheCounts;
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
