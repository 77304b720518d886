// Counts the starts, saves and evictions of one process.
import type { StartReport } from './start-report.js';

/** The counts of one process since it opened the cache, or the sums of all processes that used a directory. */
export interface TemplateCacheCounts {
  /** Starts whose whole template came from `resident`, `memory` or `disk`. */
  hits: number;
  /** Starts that prefilled the template or a part of it. */
  misses: number;
  /** Misses that reused a prefix from the nearest cached template. */
  prefixStarts: number;
  /** Starts that did not use the cache. */
  bypasses: number;
  /** Template tokens of all starts except bypasses. */
  requestedTokens: number;
  /** The requested tokens whose KV state was not computed again. */
  reusedTokens: number;
  /** Damaged entries that were set aside. */
  corruptions: number;
  /** Entries written to the directory. */
  saves: number;
  /** Failed saves, for example because the disk was full or the directory was not writable. */
  failedSaves: number;
  /** Templates that were not saved because they are larger than a budget. */
  oversized: number;
  /** Sessions whose first prompt did not begin with the template of their start. */
  prefixMismatches: number;
  /** Starts that waited because another start or process was prefilling the same template. */
  waits: number;
  /**
   * Total time of the prefills that were avoided, in ms. The times were measured when the templates were first
   * prefilled.
   */
  prefillMsSaved: number;
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

/** Counts starts, saves and evictions. Does not know sizes, which come from the stores. */
export class StatsCounter {
  readonly counts: TemplateCacheCounts = { ...NO_COUNTS };
  readonly hitsByTier = { resident: 0, memory: 0, disk: 0 };
  readonly bytesByTier = { memory: 0, disk: 0 };
  readonly evictions = { resident: 0, memory: 0, disk: 0 };
  readonly #restoreMs: number[] = [];
  #restores = 0;

  /** Counts a start. @param prefillMs duration of the prefill that the reused tokens replaced, ms */
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

/** Computes `a + sign * b` for each count. */
export function addCounts(a: TemplateCacheCounts, b: TemplateCacheCounts, sign: 1 | -1 = 1): TemplateCacheCounts {
  const names = Object.keys(NO_COUNTS) as (keyof TemplateCacheCounts)[];
  return Object.fromEntries(names.map((name) => [name, a[name] + sign * b[name]])) as unknown as TemplateCacheCounts;
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
