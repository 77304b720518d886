import { LRUCache } from 'lru-cache';
import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import { sameTokens } from '../tokens.js';
import { publish } from './events.js';

/** A template that stays in a separate sequence. Sessions start by forking this sequence. */
export interface ResidentTemplate {
  key: string;
  /** See `groupOf`. */
  group: string;
  tokens: Int32Array;
  /** Busy while the template is being loaded. */
  sequence: Sequence;
  /** Duration of the prefill that this template replaces, ms. */
  prefillMs: number;
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

  /** Cells of all resident templates. Cells that several templates share count once for each of them. */
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
  fork(resident: ResidentTemplate, sequence: Sequence): Promise<void> {
    return sequence.forkFrom(resident.sequence);
  }

  /** Whether a template of this many tokens can become resident. */
  admits(tokens: number): boolean {
    return this.#engine.residents.size > 0 && tokens <= this.#maxTemplate;
  }

  /**
   * Leases a sequence for a new resident template, within the budgets of cells.
   *
   * @param forSequence the sequence that starts from the template. No session that is older than this sequence loses
   *   cells.
   * @returns undefined while all resident sequences are being filled, or if sessions share too many cells of a sliding
   *   window with templates that are no longer resident
   */
  tryLease(key: string, group: string, tokens: Int32Array, forSequence: Sequence): ResidentTemplate | undefined {
    this.#makeSpace(tokens.length);
    if (!this.#engine.window.admitsResident()) {
      return undefined;
    }
    const { sessions, residents } = this.#engine;
    const sequence = this.#engine.createSequence({
      onEvicted: () => this.#forget(resident, 'another template or session needed its sequence or cells'),
    });
    sequence.group = group;
    const resident: ResidentTemplate = { key, group, tokens: tokens.slice(), sequence, prefillMs: 0 };
    return residents.tryLease(sequence, sessions.ageOf(forSequence)) ? resident : undefined;
  }

  /** Drops the least recently used templates until a new template of this many tokens is within the budget of cells. */
  #makeSpace(tokens: number): void {
    const idle = this.values().filter(({ sequence }) => !sequence.busy);
    const pinnedLast = [
      ...idle.filter(({ sequence }) => !sequence.pinned),
      ...idle.filter(({ sequence }) => sequence.pinned),
    ];
    for (const resident of pinnedLast) {
      if (this.cells + tokens <= this.#maxCells) {
        break;
      }
      this.drop(resident, 'it exceeded the budget of resident cells');
    }
  }

  /** The sequences into which templates are being loaded. */
  loading(): Sequence[] {
    return [...this.#engine.residents.leased].filter(({ busy }) => busy);
  }

  /** Call it when the sequence holds the template. From then on sessions may fork it. */
  admit(resident: ResidentTemplate): void {
    resident.sequence.pinned = this.isPinned(resident.key);
    this.#residents.set(resident.key, resident);
  }

  /** Call it when filling the sequence has ended, successfully or not. */
  settle(resident: ResidentTemplate): void {
    this.#engine.residents.setIdle(resident.sequence);
  }

  /** Releases the sequence of a template that could not be loaded. */
  discard(resident: ResidentTemplate): void {
    this.#engine.residents.release(resident.sequence);
  }

  /** Removes a template and releases its sequence. */
  drop(resident: ResidentTemplate, reason: string): void {
    this.#forget(resident, reason);
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

  #forget(resident: ResidentTemplate, reason: string): void {
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
    const resident = this.get(key);
    if (resident !== undefined) {
      resident.sequence.pinned = pinned;
    }
  }

  isPinned(key: string): boolean {
    return this.#pinned.has(key);
  }
}
