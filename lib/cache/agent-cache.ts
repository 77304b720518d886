// The template cache as an agent's users see it: templates are system prompts and tools, not tokens.

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
import type { DirectoryBudget } from './disk/eviction.js';
import type { CacheEntry, CacheEntryDetails, PruneReport, VerifyOptions, VerifyReport } from './disk/operations.js';
import type { MissExplanation, TokenDifference } from './explain.js';
import type { StartReport } from './start-report.js';
import type { TemplateCacheStats } from './statistics.js';
import type { TemplateCache } from './template-cache.js';

/** What sessions start from; what is left out is the agent's own. */
export interface TemplateOptions extends TemplateSource {
  /** Whose entries: see the session's option. */
  tenant?: string | undefined;
}

const WARM = {
  /** Ends it with `ABORTED`; templates that are done stay. */
  signal: abortSignal().optional(),
  /** After each template: how many are done, and its report. */
  onProgress: callable<(done: number, report: StartReport) => void>().optional(),
};

/** How templates are warmed. */
export interface WarmOptions extends OptionsOf<typeof WARM> {}

export const WARM_OPTIONS = group(WARM);

/** A {@link MissExplanation} with the text around the first token that differs. */
export interface TemplateMissExplanation extends MissExplanation {
  /** Where the nearest entry's tokens differ, and it is no other tenant's. */
  difference?: TokenDifference & {
    /** This template's text around that place. */
    hereText: string;
    /** The nearest entry's. */
    entryText: string;
  };
}

export interface AgentCacheParts {
  cache: TemplateCache;
  engine: Engine;
  model: Model;
  gate: RwLock;
  /** The tokens that sessions with these options start from. */
  find(template: TemplateOptions): Promise<Boundary>;
}

/** Reached as `agent.templateCache`. Every method is safe while sessions run and other processes use the directory. */
export class AgentTemplateCache {
  readonly #parts: AgentCacheParts;

  /** @internal */
  constructor(parts: AgentCacheParts) {
    this.#parts = parts;
  }

  /**
   * Makes templates ready before traffic comes: prefills those that are not cached, saves them, and makes the last ones
   * resident. Resolves when all are on disk, or could not get there.
   *
   * @returns a report for each, in order
   * @throws HeadstartError `INVALID_ARGUMENT`, `ABORTED`, and as `createSession`.
   */
  async warm(templates: readonly TemplateOptions[], options: WarmOptions = {}): Promise<StartReport[]> {
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
    for (const template of templates) {
      throwIfAborted(signal);
      const report = await this.#warmOne(template, signal);
      reports.push(report);
      onProgress?.(reports.length, report);
    }
    await this.#parts.cache.flush();
    return reports;
  }

  /** Cached templates, in whatever tier: those of other models and configurations in the directory, too. */
  list(): Promise<CacheEntry[]> {
    return this.#parts.cache.list();
  }

  /**
   * One of {@link list}, with what its key is made of.
   *
   * @throws HeadstartError `ENTRY_MISSING`.
   */
  inspect(key: string): Promise<CacheEntryDetails> {
    return this.#parts.cache.inspect(key);
  }

  /**
   * Reads every entry of the directory to its last byte; damaged ones are set aside as `*.corrupt`.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `ABORTED`.
   */
  verify(options?: VerifyOptions): Promise<VerifyReport> {
    return this.#parts.cache.verify(options);
  }

  /**
   * Applies the budgets, those given here first, and sweeps up what dead processes left.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`.
   */
  prune(budget?: DirectoryBudget): Promise<PruneReport> {
    return this.#parts.cache.prune(budget);
  }

  /** Deletes all entries, pinned ones too; sessions go on. Returns how many. */
  clear(): Promise<number> {
    return this.#parts.cache.clear();
  }

  /** Deletes one template in every tier; the next start prefills it. Returns whether there was anything. */
  async invalidate(template: TemplateOptions): Promise<boolean> {
    const { tokens } = await this.#parts.find(template);
    return tokens.length > 0 && this.#parts.cache.invalidate(tokens, template);
  }

  /**
   * Keeps a template from eviction, also in other processes and after a restart. It need not be cached yet.
   *
   * @throws HeadstartError `WRITE_FAILED`.
   */
  async pin(template: TemplateOptions): Promise<void> {
    const { tokens } = await this.#parts.find(template);
    await this.#parts.cache.pin(tokens, template);
  }

  /** Lets a pinned template be evicted again. */
  async unpin(template: TemplateOptions): Promise<void> {
    const { tokens } = await this.#parts.find(template);
    await this.#parts.cache.unpin(tokens, template);
  }

  /** What a session with this template would start from now, and if it is a miss, what differs from the nearest entry. */
  async explainMiss(template: TemplateOptions): Promise<TemplateMissExplanation> {
    const { tokens } = await this.#parts.find(template);
    const { difference, ...explanation } = await this.#parts.cache.explainMiss(tokens, template);
    if (difference === undefined) {
      return explanation;
    }
    const [hereText, entryText] = await Promise.all([this.#text(difference.here), this.#text(difference.entry)]);
    return { ...explanation, difference: { ...difference, hereText, entryText } };
  }

  /** Hits, misses, sizes. */
  stats(): TemplateCacheStats {
    return this.#parts.cache.stats();
  }

  /** Resolves when every save begun so far is on disk or has failed. */
  flush(): Promise<void> {
    return this.#parts.cache.flush();
  }

  async #warmOne(template: TemplateOptions, signal: AbortSignal | undefined): Promise<StartReport> {
    const { cache, engine, gate, find } = this.#parts;
    const { tokens, breakpoints, reason } = await find(template);
    if (tokens.length === 0) {
      return cache.startWithout(reason);
    }
    const leave = await gate.read(signal);
    const { sessions } = engine;
    try {
      const sequence = await sessions.lease({ busy: true, onEvicted: () => undefined }, signal);
      try {
        return await cache.start(sequence, tokens, { tenant: template.tenant, breakpoints: breakpoints ?? [], signal });
      } finally {
        sessions.release(sequence);
      }
    } finally {
      leave();
    }
  }

  async #text(tokens: readonly number[]): Promise<string> {
    return new TextDecoder().decode(await this.#parts.model.detokenize(Int32Array.from(tokens), { special: true }));
  }
}
