import type { ConversationSequence } from '../chat/conversation-sequence.js';
import type { Session } from './session.js';

/**
 * The open sessions of an agent. If a session is garbage-collected without `close()`, it is removed here and its
 * sequence is closed.
 */
export class OpenSessions {
  readonly #references = new Map<string, WeakRef<Session>>();
  /** The ids of sessions that are being restored. */
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
   * @returns undefined if the id is in use. Otherwise a function that ends the reservation: call it when the session is
   *   open or has failed to open.
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
