// Captured states go into the memory tier, and to disk behind the first session's back.
import type { Logger } from '../logger.js';
import type { SequenceState } from '../native/state.js';
import type { CumulativeCounts } from './disk/cumulative-counts.js';
import type { DiskStore } from './disk/disk-store.js';
import type { EntryLock } from './disk/entry-lock.js';
import { type DirectoryBudget, dated, isBounded, LARGE_DIRECTORY_BYTES, surplus } from './disk/eviction.js';
import { publish } from './events.js';
import { ENTRY_FORMAT, type Keyring } from './key.js';
import type { MemoryStore } from './memory-store.js';
import type { StatsCounter } from './statistics.js';

export interface Capture {
  key: string;
  keyring: Keyring;
  state: SequenceState;
  tokens: Int32Array;
  prefillMs: number;
}

export class WriteBehind {
  readonly #memory: MemoryStore;
  readonly #disk: DiskStore | undefined;
  readonly #totals: CumulativeCounts | undefined;
  readonly #budget: DirectoryBudget;
  readonly #stats: StatsCounter;
  readonly #logger: Logger | undefined;
  readonly #saving = new Set<Promise<void>>();
  #warnedOfSize = false;

  constructor(parts: {
    memory: MemoryStore;
    disk: DiskStore | undefined;
    totals: CumulativeCounts | undefined;
    budget: DirectoryBudget;
    stats: StatsCounter;
    logger: Logger | undefined;
  }) {
    this.#memory = parts.memory;
    this.#disk = parts.disk;
    this.#totals = parts.totals;
    this.#budget = parts.budget;
    this.#stats = parts.stats;
    this.#logger = parts.logger;
  }

  /** Hands a verified state to the memory tier, or lets its bytes go. */
  keep({ key, keyring, state, tokens, prefillMs }: Capture): void {
    if (!this.#memory.put(key, { state, tokens: tokens.slice(), group: keyring.group, prefillMs })) {
      state.close();
    }
  }

  /**
   * Takes the state over, and the lock, which it releases when the entry is on disk or could not get there.
   *
   * @returns why it is not saved, where that is known at once
   */
  save(capture: Capture, lock?: EntryLock): string | undefined {
    const state = capture.state.share(); // the memory tier may drop its own before the file is written
    this.keep(capture);
    const { maxDiskBytes = Infinity } = this.#budget;
    const bytes = state.byteLength + 4 * capture.tokens.length;
    if (this.#disk === undefined || bytes > maxDiskBytes) {
      state.close();
      this.#finish(lock?.release());
      if (this.#disk === undefined) {
        return undefined;
      }
      this.#stats.counts.oversized++;
      const reason = `its ${bytes} bytes are more than \`maxDiskBytes\` (${maxDiskBytes})`;
      this.#logger?.('warn', `template cache: a template of ${capture.tokens.length} tokens is not saved: ${reason}`);
      publish({ type: 'save-failed', key: capture.key, reason });
      return reason;
    }
    this.#finish(this.#write(this.#disk, capture, state, lock));
    return undefined;
  }

  /** Resolves when every save begun so far is on disk or has failed. */
  async flush(): Promise<void> {
    await Promise.all(this.#saving);
  }

  /**
   * Deletes what the budget has no room for.
   *
   * @param keep the name of an entry that stays
   */
  async bound(disk: DiskStore, budget: DirectoryBudget, names: readonly string[], keep?: string): Promise<number> {
    if (!isBounded(budget)) {
      return 0;
    }
    const entries = await dated(disk.directory, disk.index.values(), new Set(names));
    const leaving = surplus(entries, budget, Date.now(), keep);
    for (const { name, key } of leaving) {
      await disk.delete(name);
      this.#stats.evictions.disk++;
      publish({ type: 'evict', tier: 'disk', key, reason: 'the budget of the directory' });
    }
    return leaving.length;
  }

  #finish(work: Promise<void> | undefined): void {
    if (work !== undefined) {
      const done: Promise<void> = work.catch(() => undefined).finally(() => this.#saving.delete(done));
      this.#saving.add(done);
    }
  }

  async #write(disk: DiskStore, capture: Capture, state: SequenceState, lock: EntryLock | undefined): Promise<void> {
    const { key, keyring, prefillMs } = capture;
    const begin = performance.now();
    try {
      const createdAt = new Date().toISOString();
      const bytes = await disk.write(state, {
        format: ENTRY_FORMAT,
        key,
        components: keyring.components,
        createdAt,
        prefillMs,
      });
      this.#stats.counts.saves++;
      publish({ type: 'save', key, bytes, ms: performance.now() - begin });
    } catch (error) {
      this.#stats.counts.failedSaves++;
      this.#logger?.('warn', `template cache: not saved, ${String(error)}`);
      publish({ type: 'save-failed', key, reason: String(error) });
    } finally {
      state.close();
      await lock?.release();
    }
    await this.#afterSave(disk, key);
  }

  async #afterSave(disk: DiskStore, key: string): Promise<void> {
    if (isBounded(this.#budget)) {
      await this.bound(disk, this.#budget, await disk.index.refresh(), disk.nameOf(key));
    } else if (disk.index.totalBytes > LARGE_DIRECTORY_BYTES && !this.#warnedOfSize) {
      this.#warnedOfSize = true;
      this.#logger?.('warn', `template cache: ${largeDirectory(disk) ?? ''}`);
    }
    await this.#totals?.write(this.#stats.counts);
  }
}

/** A word on a directory that has grown large and has no budget. */
export function largeDirectory(disk: DiskStore): string | undefined {
  const { totalBytes, size } = disk.index;
  return totalBytes > LARGE_DIRECTORY_BYTES
    ? `${disk.directory.path} holds ${size} entries of ${(totalBytes / 1024 ** 3).toFixed(1)} GiB: set \`maxDiskBytes\`, \`maxEntries\` or \`maxAgeMs\`, or call prune() with them`
    : undefined;
}
