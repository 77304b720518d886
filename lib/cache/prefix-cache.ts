import { combinedSignal, throwIfAborted } from '../abort.js';
import type { Engine } from '../engine/engine.js';
import type { IsForgotten } from '../engine/forget-calls.js';
import type { Sequence } from '../engine/sequence.js';
import { HeadstartError } from '../errors.js';
import { forgivingLogger, type Logger } from '../logger.js';
import { SequenceState } from '../native/state.js';
import { isPrefix } from '../tokens.js';
import type { CacheOptions } from './cache-options.js';
import { type CacheStores, createStores, readPins } from './cache-stores.js';
import { CandidateLoader } from './candidate-loader.js';
import { CONVERSATION_OPTIONS, type ResolvedConversationOptions } from './conversation-options.js';
import { ConversationSaver } from './conversation-saver.js';
import { ConversationStore } from './conversation-store.js';
import type { CacheDirectory } from './disk/cache-directory.js';
import { DirectoryWatcher } from './disk/directory-watcher.js';
import type { DiskStore } from './disk/disk-store.js';
import { publish } from './events.js';
import { presentSource } from './explain-miss.js';
import { type ForgetOptions, type ForgetReport, isOf } from './forget-options.js';
import { HintPins, type PinOwner } from './hint-pins.js';
import { type KeyComponents, type Keyring, Keyrings } from './key.js';
import type { LoadedSource } from './loaded-prefix.js';
import { PrefillEstimate } from './prefill-estimate.js';
import { PrefixIndex, sourceOf } from './prefix-index.js';
import { type StartReport, startReport } from './start-report.js';
import type { Filled, StartRequest } from './start-request.js';
import { StateCopier } from './state-copier.js';
import { StatsCounter } from './stats-counter.js';
import { TemplateLoader } from './template-loader.js';

/** Options of a prefix cache. */
export interface PrefixCacheOptions
  extends Omit<
    CacheOptions,
    'dir' | 'breakpoints' | 'stableTools' | 'maxResidentTemplates' | 'maxMemoryBytes' | 'maxSavedBytes'
  > {
  /** The context that templates are computed in. */
  engine: Engine;
  /** Everything that changes KV bytes, except the tokens: see `keyComponents`. */
  components: KeyComponents;
  /** The cache directory. If null or absent, templates are kept in this process only. */
  dir?: string | null | undefined;
  /** An estimate with earlier measurements. @default a new one */
  prefillEstimate?: PrefillEstimate | undefined;
  /** Gets a warning for each failure of the cache. @default none */
  logger?: Logger | undefined;
}

/** The owner of a template. Entries of one tenant are never used for another. */
export interface TenantOptions {
  /** Any name. Templates without a tenant share their entries. @default none */
  tenant?: string | undefined;
}

/** Options of a start. */
export interface StartOptions extends TenantOptions {
  /**
   * Whether to use the cache. If false, the template is prefilled, and the report says `cache: 'bypass'`.
   *
   * @default true
   */
  cache?: boolean;
  /**
   * Ascending token counts. The prefill is cut after each of them, and a separate entry is saved for each prefix.
   *
   * @default none
   */
  breakpoints?: readonly number[];
  /** Whether the template is one of a request with cache hints: see `HintPins`. @default false */
  isHinted?: boolean | undefined;
  /** Stops the start with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** Maximum memory to reserve for restores: see {@link SequenceState.reserve}. */
const MAX_RESERVED_BYTES = 256 * 1024 ** 2;

/**
 * A persistent prefix cache for one engine. An entry ends exactly where its template ends. The cache works with token
 * ids and does not know chat templates: `start` brings a template's tokens into an empty sequence in the cheapest
 * possible way.
 *
 * A problem with the cache causes a miss and never an error: `start` throws only errors that a plain prefill would
 * throw too.
 */
export class PrefixCache {
  readonly stores: CacheStores;
  readonly stats = new StatsCounter();
  readonly #hintPins: HintPins;
  /** @internal */
  readonly index: PrefixIndex;
  /** @internal */
  readonly candidates: CandidateLoader;
  /** @internal Undefined if conversations are not kept on disk. */
  conversations: ConversationStore | undefined;
  /** @internal Called when this or another process that uses the directory has forgotten conversations. */
  onForgotten: ((isForgotten: IsForgotten) => void) | undefined;
  readonly #options: PrefixCacheOptions;
  readonly #loader: TemplateLoader;
  readonly #prefillEstimate: PrefillEstimate;
  readonly #closing = new AbortController();
  #watcher: DirectoryWatcher | undefined;
  #saver: ConversationSaver | undefined;
  #keyrings: Keyrings;

  private constructor(options: PrefixCacheOptions) {
    const { engine, logger, components, reuse } = options;
    this.#options = options;
    this.#keyrings = new Keyrings(components);
    this.#prefillEstimate = options.prefillEstimate ?? new PrefillEstimate();
    this.stores = createStores(options, this.stats);
    this.#hintPins = new HintPins(this.stores);
    const copier = new StateCopier({ engine, states: this.stores.states, logger });
    this.index = new PrefixIndex({ ...this.stores, engine });
    this.candidates = new CandidateLoader({ ...this.stores, engine, copier });
    this.#loader = new TemplateLoader({
      ...this.stores,
      engine,
      logger,
      index: this.index,
      copier,
      candidates: this.candidates,
      hintPins: this.#hintPins,
      prefillEstimate: this.#prefillEstimate,
      nearest: reuse !== 'exact',
    });
  }

  /**
   * Opens the directory and reads its index. If the directory cannot be used, the disk tier is always a miss.
   *
   * @throws HeadstartError `CACHE_DIR_SHARED` if other users can write to the directory.
   */
  static async open(options: PrefixCacheOptions): Promise<PrefixCache> {
    const logger = options.logger && forgivingLogger(options.logger);
    const cache = new PrefixCache({ ...options, logger });
    const { disk, cumulative } = cache.stores;
    if (disk !== undefined) {
      await disk.directory.make().catch(() => undefined);
      if (!options.allowSharedDirectory) {
        await disk.directory.requirePrivate();
      }
      cache.#watcher = new DirectoryWatcher(disk.directory, disk.index);
      const [names] = await Promise.all([cache.#watcher.begin(), cumulative?.read()]);
      readPins(cache.stores, names);
      await Promise.all([disk.directory.sweep(names), cache.#reserve(disk), cache.#openConversations(disk)]);
    }
    return cache;
  }

  /**
   * Reserves memory for the largest entry when the cache is opened, because new pages from the operating system would
   * slow the first restore.
   */
  async #reserve(disk: DiskStore): Promise<void> {
    const { group } = this.keyring();
    const sizes = [...disk.index.values()].filter((entry) => entry.group === group).map(({ bytes }) => bytes);
    const bytes = sizes.filter((size) => size <= MAX_RESERVED_BYTES).reduce((most, size) => Math.max(most, size), 0);
    if (bytes > 0) {
      await SequenceState.reserve(bytes).catch(() => undefined);
    }
  }

  async #openConversations({ directory }: DiskStore): Promise<void> {
    const { conversations, engine } = this.#options;
    if (!conversations || engine.reproducible !== undefined) {
      return;
    }
    const options = CONVERSATION_OPTIONS.parse(conversations === true ? {} : conversations);
    const store = this.#conversationStore(directory, options);
    await store.open();
    const keyring = (tenant: string | undefined) => this.keyring(tenant);
    this.conversations = store;
    this.index.conversations = store;
    this.#saver = new ConversationSaver({ engine, store, prefillEstimate: this.#prefillEstimate, keyring });
  }

  /**
   * Forgets conversations: idle sequences, states in memory, and files in the directory, even if this cache keeps no
   * conversations on disk.
   */
  async forget(options: ForgetOptions): Promise<ForgetReport> {
    const { disk } = this.stores;
    const forgotten = this.#forgetInMemory((owner) => isOf(owner, options));
    const files =
      this.conversations ?? (disk && this.#conversationStore(disk.directory, CONVERSATION_OPTIONS.parse({})));
    return { ...forgotten, files: (await files?.forget(options)) ?? 0 };
  }

  #forgetInMemory(isForgotten: IsForgotten): Omit<ForgetReport, 'files'> {
    const forgotten = this.#options.engine.forget(isForgotten);
    this.onForgotten?.(isForgotten);
    return forgotten;
  }

  #conversationStore(directory: CacheDirectory, options: ResolvedConversationOptions): ConversationStore {
    const { engine, logger } = this.#options;
    const onForgotten = (isForgotten: IsForgotten) => this.#forgetInMemory(isForgotten);
    return new ConversationStore({ directory, options, forgets: engine.forgets, onForgotten, logger });
  }

  /** Saves the conversations in the KV cache. Call it before they are closed. */
  async saveConversations(): Promise<void> {
    await this.#saver?.saveAll();
  }

  /**
   * Looks up a template that will be loaded next. Prefills that may be cut for this template wait until it is known.
   */
  expecting<T>(tenant: string | undefined, find: () => Promise<T>): Promise<T> {
    return this.#loader.expecting(this.keyring(tenant).group, find);
  }

  /**
   * Brings a template into an empty sequence.
   *
   * @param sequence an empty sequence, leased from the engine's session pool
   * @param tokens the template's token ids, at least one; do not change the array during the call
   * @throws HeadstartError `ABORTED`, `CLOSED`, `CONTEXT_FULL`, `TOKEN_OUT_OF_RANGE`, `DECODE_FAILED`; the sequence is
   *   then empty. After `ABORTED` it may hold the first tokens of the template.
   */
  async start(sequence: Sequence, tokens: Int32Array, options: StartOptions = {}): Promise<StartReport> {
    const begin = performance.now();
    this.#requireOpen();
    throwIfAborted(options.signal);
    requireTokens(tokens);
    const keyring = this.keyring(options.tenant);
    const whyBypass = this.#whyBypass(tokens, options);
    const key = whyBypass === undefined ? keyring.keyOf(tokens) : '';
    const signal = combinedSignal(options.signal, this.#closing.signal);
    const { breakpoints = [], isHinted = false } = options;
    const request: StartRequest = { key, keyring, sequence, tokens, breakpoints, isHinted, signal };
    sequence.group = keyring.group;
    try {
      const filled = await (whyBypass === undefined
        ? this.#loader.fill(request)
        : this.#loader.bypass(request, whyBypass));
      if (!isHinted) {
        this.#hintPins.noteStart(key, keyring);
      }
      return this.#report(request, filled, begin);
    } catch (error) {
      // The repeat of an aborted request continues with the tokens that were decoded until the abort.
      if (!HeadstartError.isInstance(error, 'ABORTED') || !isPrefix(sequence.tokens, tokens)) {
        await sequence.clear().catch(() => undefined);
      }
      this.#requireOpen();
      if (HeadstartError.isInstance(error, 'PREEMPTED')) {
        return this.start(sequence, tokens, options); // older requests needed the cells, and have them now
      }
      throw error;
    }
  }

  /**
   * Finds what {@link start} would reuse now. Reads no state, changes no count, and does not count as a use of the
   * template.
   */
  async peek(tokens: Int32Array, options: Pick<StartOptions, 'tenant' | 'cache'>): Promise<LoadedSource> {
    const bypass = this.#whyBypass(tokens, options);
    if (bypass !== undefined) {
      return { source: 'prefill', cachedTokens: 0, templateReason: bypass };
    }
    const { engine, reuse } = this.#options;
    const keyring = this.keyring(options.tenant);
    const source = await presentSource(keyring.keyOf(tokens), this.stores);
    if (source !== 'prefill') {
      return { source, cachedTokens: tokens.length };
    }
    const query = { group: keyring.group, tokens, canTrim: engine.canTrimRestored };
    const nearest = reuse === 'exact' ? undefined : await this.index.nearestTemplate(query);
    const nearestSource = nearest === undefined ? 'prefill' : sourceOf(nearest);
    return { source: nearestSource, cachedTokens: nearest?.shared ?? 0, limit: 'template', templateReason: 'absent' };
  }

  /** Counts the start of a session that has no template. */
  startWithout(reason = 'no template'): StartReport {
    this.stats.counts.bypasses++;
    const nothing = { templateTokens: 0, cachedTokens: 0, bytes: 0, ms: 0, key: '' };
    return startReport({ source: 'prefill', cache: 'bypass', ...nothing, reason });
  }

  /** Counts a session whose prompt did not begin with the template that it started from. */
  countPrefixMismatch(): void {
    this.stats.counts.prefixMismatches++;
  }

  /**
   * Pins the template of a request and its beginnings of these lengths for some time, in memory and on disk.
   *
   * @param template the tokens of the template
   */
  pinFor(owner: PinOwner, template: Int32Array, lengths: readonly number[], ttlMs: number): void {
    const keyring = this.keyring(owner.tenant);
    const keys = [template.length, ...lengths].map((length) => keyring.keyOf(template.subarray(0, length)));
    this.#hintPins.set(owner, keyring, keys, ttlMs);
  }

  /** The keyring of a tenant. */
  keyring(tenant?: string): Keyring {
    return this.#keyrings.of(tenant);
  }

  /**
   * Call it after the adapters of the context have changed. Keys change too, and resident templates are dropped.
   *
   * @param lora see `loraComponent`
   */
  setLora(lora: readonly string[]): void {
    this.#keyrings = new Keyrings({ ...this.#keyrings.components, lora });
    this.stores.residents.dropAll('the adapters changed');
  }

  /**
   * Aborts starts in progress, waits for saves, and frees the states in memory. Idempotent. Close the cache before its
   * engine.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#saver?.close();
    await this.#watcher?.close();
    await this.#loader.settled();
    await this.conversations?.close();
    const { writeBehind, cumulative, disk, states } = this.stores;
    await writeBehind.settled();
    await cumulative?.write(this.stats.counts);
    await disk?.directory.close();
    states.clear('template');
  }

  #report(request: StartRequest, filled: Filled, begin: number): StartReport {
    const { prefillMs, ...rest } = filled;
    const { tokens, key } = request;
    const ms = performance.now() - begin;
    const report = startReport({ templateTokens: tokens.length, ...rest, key, ms });
    this.stats.record(report, (prefillMs * report.cachedTokens) / tokens.length);
    publish({ type: 'start', report });
    return report;
  }

  /** @returns the reason if the start bypasses the cache */
  #whyBypass(tokens: Int32Array, { cache }: StartOptions): string | undefined {
    const { minTokens = 0, breakEven = false } = this.#options;
    if (cache === false) {
      return 'the cache was switched off for this start';
    }
    if (tokens.length < minTokens) {
      return `the template has ${tokens.length} tokens, fewer than \`minTokens\` (${minTokens})`;
    }
    return breakEven && this.#prefillEstimate.prefillIsFaster()
      ? '`breakEven`: prefills were measured to be no slower than restores'
      : undefined;
  }

  #requireOpen(): void {
    if (this.#closing.signal.aborted) {
      throw new HeadstartError('CLOSED', 'Expected an open template cache, but it was closed');
    }
  }
}

function requireTokens(tokens: Int32Array): void {
  if (tokens.length === 0) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected a template of at least one token, got none');
  }
}
