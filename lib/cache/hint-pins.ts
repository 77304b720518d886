import { LRUCache } from 'lru-cache';
import type { CacheStores } from './cache-stores.js';
import type { Keyring } from './key.js';

/** The pins of one tenant together may protect this share of the budget. */
const MAX_SHARE = 0.25;
/** All pins together may protect this share, so that other states always find memory. */
const MAX_SHARE_OF_ALL = 0.5;

/** How many entries with hints are remembered. */
const MAX_REMEMBERED = 4096;

/** The conversation that asks for a pin. */
export interface PinOwner {
  tenant: string | undefined;
  /** The client's name for the conversation. A conversation with a name has only the pins of its newest request. */
  affinity: string | undefined;
}

interface Pin {
  owner: PinOwner;
  /** The end of the pin, ms since the start of the process. */
  until: number;
}

/**
 * The templates, and beginnings of templates, that requests pin for some time with cache hints. If the pins of a tenant
 * exceed its share of the budgets, the least recently renewed ones end.
 *
 * A prefill for such a request keeps the entry only in memory. The entry is written to disk when a second request uses
 * it. So a client whose system prompt changes in each request costs no files.
 */
export class HintPins {
  readonly #stores: CacheStores;
  /** How many requests have used each entry that was kept only in memory. */
  readonly #uses = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  /** By key. The least recently renewed pins are first. */
  readonly #pins = new Map<string, Pin>();

  constructor(stores: CacheStores) {
    this.#stores = stores;
  }

  /**
   * Whether the prefill for a request with hints writes an entry to disk. If not, a later request writes the entry:
   * see {@link set} and {@link noteStart}.
   */
  isWritten(key: string): boolean {
    const uses = this.#uses.get(key) ?? 0;
    this.#uses.set(key, uses);
    return uses > 0;
  }

  /** Counts the use of an entry by a start without hints. */
  noteStart(key: string, keyring: Keyring): void {
    if (this.#uses.delete(key)) {
      this.#stores.writeBehind.saveStored(key, keyring);
    }
  }

  /**
   * Pins the entries with these keys, if they are in memory or on disk. Counts as a use of the entries, so call it once
   * for each request with hints, when its template is loaded.
   */
  set(owner: PinOwner, keyring: Keyring, keys: readonly string[], ttlMs: number): void {
    const now = performance.now();
    for (const [key, pin] of this.#pins) {
      const isReplaced = owner.affinity !== undefined && isSame(pin.owner, owner) && !keys.includes(key);
      if (isReplaced || pin.until <= now) {
        this.#end(key);
      }
    }
    for (const key of keys) {
      this.#noteUse(key, keyring);
      if (this.#bytesOf(key) > 0) {
        this.#pins.delete(key); // a renewed pin becomes the last
        this.#pins.set(key, { owner, until: now + ttlMs });
        this.#stores.states.pinFor(key, ttlMs);
      }
    }
    this.#limit(MAX_SHARE, ({ owner: { tenant } }) => tenant === owner.tenant);
    this.#limit(MAX_SHARE_OF_ALL, () => true);
  }

  /** Counts the use of an entry by a request with hints. The second use writes an entry that is only in memory. */
  #noteUse(key: string, keyring: Keyring): void {
    const uses = this.#uses.get(key);
    if (uses !== undefined) {
      this.#uses.set(key, uses + 1);
    }
    if (uses === 1) {
      this.#stores.writeBehind.saveStored(key, keyring);
    }
  }

  /** Ends the least recently renewed of the selected pins, until the others protect at most `share` of the budgets. */
  #limit(share: number, isSelected: (pin: Pin) => boolean): void {
    const { states, budget } = this.#stores;
    const limit = share * Math.min(states.maxBytes, budget.maxDiskBytes ?? Number.POSITIVE_INFINITY);
    const keys = [...this.#pins].filter(([, pin]) => isSelected(pin)).map(([key]) => key);
    let bytes = keys.reduce((sum, key) => sum + this.#bytesOf(key), 0);
    for (const key of keys) {
      if (bytes <= limit) {
        return;
      }
      bytes -= this.#bytesOf(key);
      this.#end(key);
    }
  }

  /** Size of an entry in bytes; 0 if there is none. */
  #bytesOf(key: string): number {
    const { states, disk } = this.#stores;
    return states.find(key)?.state.byteLength ?? disk?.index.get(disk.nameOf(key))?.bytes ?? 0;
  }

  #end(key: string): void {
    this.#pins.delete(key);
    this.#stores.states.pinFor(key, 0);
  }
}

function isSame(a: PinOwner, b: PinOwner): boolean {
  return a.tenant === b.tenant && a.affinity === b.affinity;
}
