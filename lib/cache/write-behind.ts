// Puts captured states into the memory tier, and writes them to disk in the background.
import type { StateStore, StoredState } from '../engine/state-store.js';
import type { StateTransfer } from '../engine/state-transfers.js';
import type { Logger } from '../logger.js';
import type { SequenceState } from '../native/state.js';
import type { CumulativeCounts } from './disk/cumulative-counts.js';
import type { DiskStore } from './disk/disk-store.js';
import { pinName } from './disk/entry.js';
import type { EntryLock } from './disk/entry-lock.js';
import { type DirectoryBudget, hasBudget, largeDirectoryWarning } from './disk/eviction.js';
import { publish } from './events.js';
import type { Keyring } from './key.js';
import type { StatsCounter } from './stats-counter.js';

export interface CapturedTemplate {
  key: string;
  keyring: Keyring;
  state: SequenceState;
  /** Owns the state until the state is stored. */
  transfer: StateTransfer;
  tokens: Int32Array;
  /** Duration of the prefill of the whole template, ms. */
  prefillMs: number;
}

interface WriteBehindParts {
  states: StateStore;
  disk: DiskStore | undefined;
  cumulative: CumulativeCounts | undefined;
  budget: DirectoryBudget;
  stats: StatsCounter;
  logger: Logger | undefined;
}

export class WriteBehind {
  readonly #parts: WriteBehindParts;
  readonly #saving = new Set<Promise<void>>();
  /** The keys of the entries that are being written. */
  readonly #writing = new Set<string>();
  #warnedOfSize = false;

  constructor(parts: WriteBehindParts) {
    this.#parts = parts;
  }

  /** Moves a verified state from its transfer to the memory tier. @returns undefined if the state does not fit there */
  keep({ key, keyring, state, transfer, tokens, prefillMs }: CapturedTemplate): StoredState | undefined {
    const stored: StoredState = {
      kind: 'template',
      key,
      group: keyring.group,
      state,
      tokens: tokens.slice(),
      prefillMs,
      onEvicted: () => {
        this.#parts.stats.evictions.memory++;
        publish({ type: 'evict', tier: 'memory', key, reason: 'other states needed its memory' });
      },
    };
    return this.#parts.states.put(stored, transfer) ? stored : undefined;
  }

  /**
   * Puts the state into the memory tier and writes it to disk in the background. A state that does not fit into memory
   * stays in its transfer until the state is written. Takes ownership of the transfer and the lock. Releases the lock
   * when the entry is on disk or could not be saved.
   *
   * @param why why the state stays in memory. @default it is written
   * @returns the reason if the template is not written
   */
  save(captured: CapturedTemplate, lock?: EntryLock, why?: string): string | undefined {
    const { disk, states } = this.#parts;
    const stored = this.keep(captured);
    const releaseState = stored === undefined ? () => captured.transfer.end() : states.hold(stored);
    const reason = why ?? this.#whyTooLarge(captured);
    if (disk === undefined || reason !== undefined) {
      releaseState();
      this.#track(lock?.release());
    } else {
      const written = this.#write(disk, captured, releaseState);
      this.#track(written.finally(() => lock?.release()).then(() => this.#afterSave(disk, captured.key)));
    }
    return reason;
  }

  /** Writes a template in memory to disk in the background, unless it is on disk or is being written. */
  saveStored(key: string, keyring: Keyring): void {
    const { disk, states } = this.#parts;
    const stored = states.find(key);
    const isKnown = disk?.index.get(disk.nameOf(key)) !== undefined || this.#writing.has(key);
    if (disk === undefined || stored === undefined || isKnown || this.#whyTooLarge({ ...stored, key }) !== undefined) {
      return;
    }
    const { state, prefillMs = 0 } = stored;
    const written = this.#write(disk, { key, keyring, state, prefillMs }, states.hold(stored));
    this.#track(written.then(() => this.#afterSave(disk, key)));
  }

  /** Resolves when each save that has begun is on disk or has failed. */
  async settled(): Promise<void> {
    await Promise.all(this.#saving);
  }

  /**
   * Deletes the entries that exceed the budget.
   *
   * @param names all file names in the directory
   * @param keep the name of an entry that must stay
   * @returns the number of deleted entries
   */
  async evict(disk: DiskStore, budget: DirectoryBudget, names: readonly string[], keep?: string): Promise<number> {
    if (!hasBudget(budget)) {
      return 0;
    }
    const pinned = [...disk.index.values()].filter(({ key }) => this.#parts.states.isPinned(key));
    const pins = pinned.map(({ key }) => pinName(key)); // the pins of cache hints have no files
    const deleted = await disk.evict(budget, [...names, ...pins], keep);
    for (const { key } of deleted) {
      this.#parts.stats.evictions.disk++;
      publish({ type: 'evict', tier: 'disk', key, reason: 'it exceeded the budget of the directory' });
    }
    return deleted.length;
  }

  #whyTooLarge({ key, state, tokens }: Pick<CapturedTemplate, 'key' | 'state' | 'tokens'>): string | undefined {
    const { disk, budget, stats, logger } = this.#parts;
    const { maxDiskBytes = Infinity } = budget;
    const bytes = state.byteLength + 4 * tokens.length;
    if (disk === undefined || bytes <= maxDiskBytes) {
      return undefined;
    }
    stats.counts.oversized++;
    const reason = `its ${bytes} bytes are more than \`maxDiskBytes\` (${maxDiskBytes})`;
    logger?.('warn', `template cache: a template of ${tokens.length} tokens is not saved: ${reason}`);
    publish({ type: 'save-failed', key, reason });
    return reason;
  }

  #track(work: Promise<void> | undefined): void {
    if (work !== undefined) {
      const done: Promise<void> = work.catch(() => undefined).finally(() => this.#saving.delete(done));
      this.#saving.add(done);
    }
  }

  async #write(
    disk: DiskStore,
    { key, keyring, state, prefillMs }: Omit<CapturedTemplate, 'transfer' | 'tokens'>,
    releaseState: () => void,
  ): Promise<void> {
    const { stats, logger } = this.#parts;
    const begin = performance.now();
    const { components } = keyring;
    this.#writing.add(key);
    try {
      const bytes = await disk.write(state, { key, components, prefillMs });
      stats.counts.saves++;
      publish({ type: 'save', key, bytes, ms: performance.now() - begin });
    } catch (error) {
      stats.counts.failedSaves++;
      logger?.('warn', `template cache: not saved, ${String(error)}`);
      publish({ type: 'save-failed', key, reason: String(error) });
    } finally {
      this.#writing.delete(key);
      releaseState();
    }
  }

  async #afterSave(disk: DiskStore, key: string): Promise<void> {
    const { budget, cumulative, stats } = this.#parts;
    if (hasBudget(budget)) {
      await this.evict(disk, budget, await disk.index.refresh(), disk.nameOf(key));
    } else {
      this.#warnOfSize(disk);
    }
    await cumulative?.write(stats.counts);
  }

  /** Warns once if the directory is large. */
  #warnOfSize(disk: DiskStore): void {
    const warning = largeDirectoryWarning(disk);
    if (warning !== undefined && !this.#warnedOfSize) {
      this.#warnedOfSize = true;
      this.#parts.logger?.('warn', `template cache: ${warning}`);
    }
  }
}
