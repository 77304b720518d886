import type { ConversationSequence } from './conversation-sequence.js';
import type { Session } from './session.js';

/** The sessions of an agent that are open. Those that nobody refers to any more are forgotten, and give back what they hold. */
export class OpenSessions {
  readonly #references = new Map<string, WeakRef<Session>>();
  /** Of sessions that are being opened. */
  readonly #reserved = new Set<string>();
  readonly #forgotten = new FinalizationRegistry<{ id: string; sequence: ConversationSequence }>(({ id, sequence }) => {
    this.#references.delete(id);
    sequence.close();
  });

  get size(): number {
    return this.#references.size;
  }

  /** @param sequence what it holds: given back when the session is collected */
  add(session: Session, sequence: ConversationSequence): void {
    this.#references.set(session.id, new WeakRef(session));
    this.#forgotten.register(session, { id: session.id, sequence }, session);
  }

  delete(session: Session): void {
    this.#references.delete(session.id);
    this.#forgotten.unregister(session);
  }

  /**
   * Keeps an id for a session that is to be opened under it.
   *
   * @returns call it once that session is open, or failed to; undefined where the id is taken
   */
  reserve(id: string): (() => void) | undefined {
    if (this.#references.has(id) || this.#reserved.has(id)) {
      return undefined;
    }
    this.#reserved.add(id);
    return () => this.#reserved.delete(id);
  }

  has(id: string): boolean {
    return this.#references.has(id);
  }

  all(): Session[] {
    return [...this.#references.values()].flatMap((reference) => reference.deref() ?? []);
  }
}
