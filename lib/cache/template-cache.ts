import { throwIfAborted } from '../abort.js';
import type { Engine } from '../engine/engine.js';
import type { RwLock } from '../engine/rw-lock.js';
import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import { abortSignal, callable, group, type OptionsOf } from '../option-types.js';
import { describe } from '../options.js';
import { parseOptions } from '../parse-options.js';
import type { TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import { BUDGET_OPTIONS, type DirectoryBudget } from './disk/eviction.js';
import {
  type CacheEntry,
  type CacheEntryDetails,
  clearEverything,
  inspectEntry,
  invalidateKey,
  listEntries,
  type PruneReport,
  pruneDirectory,
  setPinned,
  VERIFY_OPTIONS,
  type VerifyOptions,
  type VerifyReport,
  verifyEntries,
} from './disk/operations.js';
import { explainMiss, type MissExplanation, type TokenDifference } from './explain-miss.js';
import type { PrefixCache, TenantOptions } from './prefix-cache.js';
import type { StartReport } from './start-report.js';
import { cacheStatistics, type TemplateCacheStats } from './statistics.js';

/** A template: the prefix with which sessions start. For a missing field, the agent's value is used. */
export interface TemplateOptions extends TemplateSource, TenantOptions {}

/** A cached template, named by its key. */
export interface TemplateKey {
  /** The key of the template: SHA-256, 64 hex digits. See `CacheEntry`. */
  key: string;
}

const KEY = /^[0-9a-f]{64}$/;

const WARM = {
  /** Stops with `ABORTED`. Templates that are ready stay. */
  signal: abortSignal().optional(),
  /** Called after each template, with the number of ready templates and the report of the newest one. */
  onProgress: callable<(done: number, report: StartReport) => void>().optional(),
};

/** Options of `warm`. */
export interface WarmOptions extends OptionsOf<typeof WARM> {}

export const WARM_OPTIONS = group(WARM);

/** A {@link MissExplanation} with the text around the first token that differs. */
export interface TemplateMissExplanation extends MissExplanation {
  /** The first difference from the nearest entry. Absent if that entry belongs to another tenant. */
  difference?: TokenDifference & {
    /** Text of this template around the difference. */
    hereText: string;
    /** Text of the nearest entry around the difference. */
    entryText: string;
  };
}

/** @typeParam Template the type that describes a template */
export interface TemplateCacheParts<Template> {
  cache: PrefixCache;
  engine: Engine;
  model: Model;
  /** The cache holds a read lock while it computes a template. */
  lock: RwLock;
  /** Finds the tokens of a template. If its sessions share no tokens, `tokens` is empty and `reason` tells why. */
  find(template: Template): Promise<Pick<Boundary, 'tokens' | 'breakpoints' | 'reason'>>;
}

/**
 * The template cache of an agent, as `agent.templateCache`. You may call every method while sessions run and while
 * other processes use the directory.
 *
 * @typeParam Template the type that describes a template
 */
export class TemplateCache<Template extends TenantOptions = TemplateOptions> {
  readonly #parts: TemplateCacheParts<Template>;

  /** @internal */
  constructor(parts: TemplateCacheParts<Template>) {
    this.#parts = parts;
  }

  /**
   * Prepares templates before the first requests: prefills and saves the templates that are not cached. The last
   * templates of the list stay resident, as many as fit. Resolves when each template is on disk or could not be saved.
   *
   * @returns one report for each template, in order
   * @throws HeadstartError `INVALID_ARGUMENT`, `ABORTED`, and all errors of `createSession`.
   */
  async warm(templates: readonly Template[], options: WarmOptions = {}): Promise<StartReport[]> {
    if (!Array.isArray(templates)) {
      throw new HeadstartError(
        'INVALID_ARGUMENT',
        `Expected \`templates\` to be an array of { systemPrompt?, tools?, tenant? }, got ${describe(templates)}`,
      );
    }
    const { signal, onProgress } = parseOptions(WARM_OPTIONS, options, {
      where: 'the options',
      code: 'INVALID_ARGUMENT',
    });
    const reports: StartReport[] = [];
    for (const template of templates as readonly Template[]) {
      throwIfAborted(signal);
      const report = await this.#warmOne(template, signal);
      reports.push(report);
      onProgress?.(reports.length, report);
    }
    await this.flush();
    return reports;
  }

  /** Lists all cached templates, including those of other models and configurations in the directory. */
  list(): Promise<CacheEntry[]> {
    return listEntries(this.#parts.cache.stores);
  }

  /**
   * Returns one entry of {@link list}, with the components of its key.
   *
   * @throws HeadstartError `ENTRY_MISSING`.
   */
  inspect(key: string): Promise<CacheEntryDetails> {
    return inspectEntry(this.#parts.cache.stores, key);
  }

  /**
   * Reads and checks every entry of the directory completely. Sets damaged entries aside as `*.corrupt`.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `ABORTED`.
   */
  async verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const context = { where: 'the options', code: 'INVALID_ARGUMENT' } as const;
    return verifyEntries(this.#parts.cache.stores, parseOptions(VERIFY_OPTIONS, options, context));
  }

  /**
   * Deletes entries that exceed a budget, and files that dead processes left behind. The fields of `budget` override
   * the configured budgets.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`.
   */
  async prune(budget: DirectoryBudget = {}): Promise<PruneReport> {
    const context = { where: 'the budget', code: 'INVALID_ARGUMENT' } as const;
    return pruneDirectory(this.#parts.cache.stores, parseOptions(BUDGET_OPTIONS, budget, context));
  }

  /** Deletes all templates in every tier, even pinned ones, and returns their number. Open sessions continue. */
  clear(): Promise<number> {
    return clearEverything(this.#parts.cache.stores);
  }

  /** Deletes one template in every tier and returns whether the template was cached. The next start is a prefill. */
  async invalidate(template: Template | TemplateKey): Promise<boolean> {
    const key = await this.#keyOf(template);
    return key !== undefined && invalidateKey(this.#parts.cache.stores, key);
  }

  /**
   * Protects a template from eviction, even by other processes and after a restart. The template need not be cached
   * yet.
   *
   * @throws HeadstartError `WRITE_FAILED`, `INVALID_ARGUMENT` (no key).
   */
  async pin(template: Template | TemplateKey): Promise<void> {
    await this.#setPinned(template, true);
  }

  /** Allows the eviction of a pinned template again. */
  async unpin(template: Template | TemplateKey): Promise<void> {
    await this.#setPinned(template, false);
  }

  /**
   * Tells which source a start with this template would use now. For a miss, compares the template with the nearest
   * entry.
   */
  async explainMiss(template: Template): Promise<TemplateMissExplanation> {
    const { cache, find } = this.#parts;
    const { tokens } = await find(template);
    const { difference, ...explanation } = await explainMiss(cache.keyring(template.tenant), tokens, cache.stores);
    if (difference === undefined) {
      return explanation;
    }
    const [hereText, entryText] = await Promise.all([this.#text(difference.here), this.#text(difference.entry)]);
    return { ...explanation, difference: { ...difference, hereText, entryText } };
  }

  /** Returns counts, such as hits and misses, and sizes. */
  stats(): TemplateCacheStats {
    const { cache, engine } = this.#parts;
    return cacheStatistics(cache.stats, cache.stores, engine.context.counters().captureMs);
  }

  /** Resolves when each save that has begun is on disk or has failed. */
  async flush(): Promise<void> {
    await this.#parts.cache.stores.writeBehind.settled();
  }

  async #warmOne(template: Template, signal: AbortSignal | undefined): Promise<StartReport> {
    const { cache, engine, lock, find } = this.#parts;
    const { tokens, breakpoints, reason } = await find(template);
    if (tokens.length === 0) {
      return cache.startWithout(reason);
    }
    const release = await lock.read(signal);
    const { sessions } = engine;
    try {
      const sequence = engine.createSequence();
      await sessions.lease(sequence, signal);
      try {
        return await cache.start(sequence, tokens, { tenant: template.tenant, breakpoints: breakpoints ?? [], signal });
      } finally {
        sessions.release(sequence);
      }
    } finally {
      release();
    }
  }

  /** Returns the key of a template. Undefined if sessions with these options have no template. */
  async #keyOf(template: Template | TemplateKey): Promise<string | undefined> {
    const { cache, find } = this.#parts;
    if ('key' in template) {
      return checkedKey(template.key);
    }
    const { tokens } = await find(template);
    return tokens.length === 0 ? undefined : cache.keyring(template.tenant).keyOf(tokens);
  }

  async #setPinned(template: Template | TemplateKey, pinned: boolean): Promise<void> {
    const key = await this.#keyOf(template);
    if (key !== undefined) {
      await setPinned(this.#parts.cache.stores, key, pinned);
    }
  }

  async #text(tokens: readonly number[]): Promise<string> {
    return new TextDecoder().decode(await this.#parts.model.detokenize(Int32Array.from(tokens), { special: true }));
  }
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
function checkedKey(key: unknown): string {
  if (typeof key !== 'string' || !KEY.test(key)) {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`key\` to be 64 hex digits, got ${describe(key)}`);
  }
  return key;
}
