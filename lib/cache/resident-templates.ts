import { LRUCache } from 'lru-cache';
import type { Engine } from '../engine/engine.js';
import type { SequenceHolder } from '../engine/sequence-pool.js';
import { sameTokens } from '../tokens.js';
import { publish } from './events.js';

/** A template that stays in a separate sequence. Sessions start by forking this sequence. */
export class ResidentTemplate implements SequenceHolder {
  readonly key: string;
  /** See `groupOf`. */
  readonly group: string;
  readonly tokens: Int32Array;
  sequence = -1;
  /** Duration of the prefill that this template replaces, ms. */
  prefillMs = 0;
  /** While the template is loaded, its sequence cannot be evicted. */
  filling = true;
  readonly #owner: ResidentTemplates;

  constructor(owner: ResidentTemplates, key: string, group: string, tokens: Int32Array) {
    this.#owner = owner;
    this.key = key;
    this.group = group;
    this.tokens = tokens;
  }

  /** Whether the template cannot be evicted now. A pinned template can be evicted only if no other template can. */
  get busy(): boolean {
    return this.filling || (this.pinned && this.#owner.hasUnpinned());
  }

  /** If KV cells run out, a pinned template is evicted only after the idle sessions. */
  get pinned(): boolean {
    return this.#owner.isPinned(this.key);
  }

  onEvicted(): void {
    this.#owner.forget(this, 'another template or session needed its sequence or cells');
  }
}

/**
 * The resident tier: templates in the KV cache, within a budget of cells. The least recently used template is evicted
 * first.
 */
export class ResidentTemplates {
  readonly #engine: Engine;
  readonly #maxCells: number;
  readonly #maxTemplate: number;
  readonly #onEvicted: () => void;
  readonly #residents = new LRUCache<string, ResidentTemplate>({
    maxSize: Number.MAX_SAFE_INTEGER, // `tryLease` enforces the budget, because busy templates must not be evicted
    sizeCalculation: ({ tokens }) => tokens.length,
  });
  readonly #pinned = new Set<string>();

  /** @param maxCells budget of cells. @default half of the KV cache, but one template may be larger */
  constructor(engine: Engine, maxCells: number | undefined, onEvicted: () => void) {
    const { kvCells } = engine.context.info;
    this.#engine = engine;
    this.#maxCells = maxCells ?? Math.floor(kvCells / 2);
    this.#maxTemplate = maxCells ?? kvCells;
    this.#onEvicted = onEvicted;
  }

  get count(): number {
    return this.#residents.size;
  }

  /** Cells of all resident templates. Cells that they share count once for each template. */
  get cells(): number {
    return this.#residents.calculatedSize;
  }

  /** All resident templates, beginning with the least recently used. */
  values(): ResidentTemplate[] {
    const residents: ResidentTemplate[] = [];
    this.#residents.rforEach((resident) => residents.push(resident));
    return residents;
  }

  has(key: string): boolean {
    return this.#residents.has(key);
  }

  /** The resident template with this key and these tokens. Counts as a use. */
  find(key: string, tokens: Int32Array): ResidentTemplate | undefined {
    const resident = this.#residents.peek(key);
    if (resident === undefined || !sameTokens(resident.tokens, tokens)) {
      return undefined;
    }
    this.#residents.get(key);
    this.#engine.residents.touch(resident.sequence);
    return resident;
  }

  /** Shares the template's cells with an empty sequence. */
  fork(resident: ResidentTemplate, sequence: number): Promise<void> {
    return this.#engine.context.copySequence(resident.sequence, sequence);
  }

  /** Whether a template of this many tokens can become resident. */
  admits(tokens: number): boolean {
    return this.#engine.residents.size > 0 && tokens <= this.#maxTemplate;
  }

  /**
   * Leases a sequence for a new resident template, within the budgets of cells.
   *
   * @param forSequence the sequence that starts from the template. No session that is older than its holder loses
   *   cells.
   * @returns undefined while all resident sequences are being filled, or if sessions share too many cells of a sliding
   *   window with templates that are no longer resident
   */
  tryLease(key: string, group: string, tokens: Int32Array, forSequence: number): ResidentTemplate | undefined {
    for (const resident of this.values()) {
      if (this.cells + tokens.length <= this.#maxCells) {
        break;
      }
      if (!resident.busy) {
        this.drop(resident, 'it exceeded the budget of resident cells');
      }
    }
    if (!this.#engine.window.admitsResident()) {
      return undefined;
    }
    const resident = new ResidentTemplate(this, key, group, tokens.slice());
    const { sessions, residents } = this.#engine;
    const sequence = residents.tryLease(resident, sessions.ageOf(forSequence));
    if (sequence === undefined) {
      return undefined;
    }
    resident.sequence = sequence;
    return resident;
  }

  /** Call it when the sequence holds the template. From then on sessions may fork it. */
  admit(resident: ResidentTemplate): void {
    this.#residents.set(resident.key, resident);
  }

  /** Call it when filling the sequence has ended, successfully or not. */
  settle(resident: ResidentTemplate): void {
    resident.filling = false;
    this.#engine.residents.idle();
  }

  /** Releases the sequence of a template that could not be loaded. */
  discard(resident: ResidentTemplate): void {
    this.#engine.residents.release(resident.sequence);
  }

  /** Removes a template and releases its sequence. */
  drop(resident: ResidentTemplate, reason: string): void {
    this.forget(resident, reason);
    this.#engine.residents.release(resident.sequence);
  }

  dropAll(reason: string): void {
    for (const resident of this.values()) {
      this.drop(resident, reason);
    }
  }

  /** The resident template with this key. Does not count as a use. */
  get(key: string): ResidentTemplate | undefined {
    return this.#residents.peek(key);
  }

  /** @internal Call it when the pool has evicted the template's sequence. */
  forget(resident: ResidentTemplate, reason: string): void {
    if (this.get(resident.key) === resident) {
      this.#residents.delete(resident.key);
      this.#onEvicted();
      publish({ type: 'evict', tier: 'resident', key: resident.key, reason });
    }
  }

  setPinned(key: string, pinned: boolean): void {
    if (pinned) {
      this.#pinned.add(key);
    } else {
      this.#pinned.delete(key);
    }
  }

  isPinned(key: string): boolean {
    return this.#pinned.has(key);
  }

  /** Whether an unpinned template can be evicted now. */
  hasUnpinned(): boolean {
    return this.values().some(({ key, filling }) => !filling && !this.#pinned.has(key));
  }
}
