import type { ConversationSequence } from './conversation-sequence.js';
import type { Session } from './session.js';

/**
 * The open sessions of an agent. A session that was garbage-collected without `close()` is removed, and its sequence is
 * closed.
 */
export class OpenSessions {
  readonly #references = new Map<string, WeakRef<Session>>();
  /** Ids of sessions that are being restored. */
  readonly #reserved = new Set<string>();
  readonly #finalization = new FinalizationRegistry<{ id: string; sequence: ConversationSequence }>(
    ({ id, sequence }) => {
      this.#references.delete(id);
      sequence.close();
    },
  );

  get size(): number {
    return this.#references.size;
  }

  /** @param sequence the session's sequence, which is closed when the session is garbage-collected */
  add(session: Session, sequence: ConversationSequence): void {
    this.#references.set(session.id, new WeakRef(session));
    this.#finalization.register(session, { id: session.id, sequence }, session);
  }

  delete(session: Session): void {
    this.#references.delete(session.id);
    this.#finalization.unregister(session);
  }

  /**
   * Reserves the id of a session that is being restored.
   *
   * @returns a function that ends the reservation: call it when the session is open or has failed to open. Undefined if
   *   the id is in use.
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
