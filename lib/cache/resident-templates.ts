import type { Engine } from '../engine/engine.js';
import type { SequenceHolder } from '../engine/sequence-pool.js';
import { sameTokens } from '../tokens.js';
import { publish } from './events.js';

/** A template in a sequence of its own, which sessions fork. */
export class ResidentTemplate implements SequenceHolder {
  readonly key: string;
  /** See `groupOf`. */
  readonly group: string;
  readonly tokens: Int32Array;
  sequence = -1;
  /** What it saves. */
  prefillMs = 0;
  /** While it is being filled nobody may take its sequence. */
  filling = true;
  readonly #owner: ResidentTemplates;

  constructor(owner: ResidentTemplates, key: string, group: string, tokens: Int32Array) {
    this.#owner = owner;
    this.key = key;
    this.group = group;
    this.tokens = tokens;
  }

  /** A pinned one leaves only when no other can. */
  get busy(): boolean {
    return this.filling || (this.#owner.isPinned(this.key) && this.#owner.hasUnpinned());
  }

  get pinned(): boolean {
    return this.#owner.isPinned(this.key);
  }

  onEvicted(): void {
    this.#owner.forget(this, 'its sequence or cells were needed');
  }
}

/** The resident tier: templates in the KV cache, least recently used out first, within a budget of cells. */
export class ResidentTemplates {
  readonly #engine: Engine;
  readonly #maxCells: number;
  readonly #maxTemplate: number;
  readonly #onEvicted: () => void;
  /** Least recently used first. */
  readonly #residents = new Map<string, ResidentTemplate>();
  readonly #pinned = new Set<string>();

  /** @param maxCells default: half of the KV cache, but one template may be larger */
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

  /** Cells that resident templates fill, counted as if they shared none. */
  get cells(): number {
    return [...this.#residents.values()].reduce((sum, { tokens }) => sum + tokens.length, 0);
  }

  values(): IterableIterator<ResidentTemplate> {
    return this.#residents.values();
  }

  has(key: string): boolean {
    return this.#residents.has(key);
  }

  /** The template where it is resident, now the most recently used. */
  find(key: string, tokens: Int32Array): ResidentTemplate | undefined {
    const resident = this.#residents.get(key);
    if (resident === undefined || !sameTokens(resident.tokens, tokens)) {
      return undefined;
    }
    this.touch(resident);
    return resident;
  }

  touch(resident: ResidentTemplate): void {
    this.#residents.delete(resident.key);
    this.#residents.set(resident.key, resident);
    this.#engine.residents.touch(resident.sequence);
  }

  /** Shares its cells with an empty sequence. */
  fork(resident: ResidentTemplate, sequence: number): Promise<void> {
    return this.#engine.context.copySequence(resident.sequence, sequence);
  }

  /** Whether a template of so many tokens can be resident at all. */
  admits(tokens: number): boolean {
    return this.#engine.residents.size > 0 && tokens <= this.#maxTemplate;
  }

  /**
   * A sequence for a new resident template, within the budgets of cells; undefined while others are being filled in all there
   * are, or where sessions share too many cells of a sliding window with templates that have left.
   *
   * @param forSequence whose holder begins with it: no session that began before gives it cells
   */
  tryLease(key: string, group: string, tokens: Int32Array, forSequence: number): ResidentTemplate | undefined {
    for (const resident of [...this.#residents.values()]) {
      if (this.cells + tokens.length <= this.#maxCells) {
        break;
      }
      if (!resident.busy) {
        this.drop(resident, 'the budget of resident cells is full');
      }
    }
    if (!this.#engine.window.admitsResident()) {
      return undefined;
    }
    const made = new ResidentTemplate(this, key, group, tokens.slice());
    const { sessions, residents } = this.#engine;
    const sequence = residents.tryLease(made, sessions.ageOf(forSequence));
    if (sequence === undefined) {
      return undefined;
    }
    made.sequence = sequence;
    return made;
  }

  /** It is filled: sessions may fork it. */
  admit(resident: ResidentTemplate): void {
    this.#residents.set(resident.key, resident);
  }

  /** Call when filling ended, well or not. */
  settle(resident: ResidentTemplate): void {
    resident.filling = false;
    this.#engine.residents.idle();
  }

  /** It could not be filled. */
  discard(resident: ResidentTemplate): void {
    this.#engine.residents.release(resident.sequence);
  }

  /** Gives its sequence back. */
  drop(resident: ResidentTemplate, reason: string): void {
    this.forget(resident, reason);
    this.#engine.residents.release(resident.sequence);
  }

  dropAll(reason: string): void {
    for (const resident of [...this.#residents.values()]) {
      this.drop(resident, reason);
    }
  }

  get(key: string): ResidentTemplate | undefined {
    return this.#residents.get(key);
  }

  /** @internal The pool took the sequence. */
  forget(resident: ResidentTemplate, reason: string): void {
    if (this.#residents.get(resident.key) === resident) {
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

  hasUnpinned(): boolean {
    return [...this.#residents.values()].some(({ key, filling }) => !filling && !this.#pinned.has(key));
  }
}
