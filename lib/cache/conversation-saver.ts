import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import {
  checkpointsOf,
  type ConversationSaver as EngineSaver,
  longestCheckpoint,
} from '../engine/sequence-contents.js';
import type { ContentsCopy } from '../engine/sequence-states.js';
import type { StoredState } from '../engine/state-store.js';
import { prefixOfAtLeast, sameTokens } from '../tokens.js';
import type { ConversationStore, UnsavedConversation } from './conversation-store.js';
import type { Keyring } from './key.js';
import type { PrefillEstimate } from './prefill-estimate.js';

export interface ConversationSaverParts {
  engine: Engine;
  store: ConversationStore;
  prefillEstimate: PrefillEstimate;
  keyring: (tenant: string | undefined) => Keyring;
}

/** The state of a sequence that is worth a file. */
interface Plan {
  conversation: UnsavedConversation;
  /** A state in memory that holds all tokens to save. Undefined if the sequence must be captured. */
  stored: StoredState | undefined;
}

/** Maximum time of a timer, ms. Node.js fires a timer with a longer time at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * Decides when the states of conversations are saved: at an eviction, after a time without a request, and when the agent
 * is closed. Also decides which state is saved: the longest one from which the next prompt can continue.
 */
export class ConversationSaver implements EngineSaver {
  readonly #parts: ConversationSaverParts;
  /** For each sequence: the value of `idleSince` at which its save was considered. */
  readonly #considered = new WeakMap<Sequence, number>();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(parts: ConversationSaverParts) {
    this.#parts = parts;
    parts.engine.saver = this;
  }

  onEvict(
    sequence: Sequence,
    isTakenOver: boolean,
  ): ((captured: Promise<ContentsCopy | undefined>) => void) | undefined {
    const plan = this.#plan(sequence);
    if (plan === undefined) {
      return undefined;
    }
    const { conversation, stored } = plan;
    if (stored !== undefined) {
      this.#saveStored(conversation, stored);
      return undefined;
    }
    const isShortened = conversation.tokens.length < sequence.length;
    if (isShortened && isTakenOver) {
      return undefined; // the new owner needs the tokens that a rewind would remove
    }
    if (isShortened) {
      sequence.rewind(conversation.tokens.length);
    }
    return (captured) => this.#parts.store.save(conversation, this.#unlessContinued(sequence, conversation, captured));
  }

  onIdle(): void {
    if (this.#timer === undefined && !this.#isClosed) {
      this.#wait(this.#parts.store.options.idleMs);
    }
  }

  /** Ends the saves after a time without a request. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  /** Saves all conversations in the KV cache, and resolves when the saves have ended. */
  async saveAll(): Promise<void> {
    this.close();
    await this.#parts.engine.sessions.untilTurnsEnd();
    for (const sequence of [...this.#parts.engine.sessions.leased]) {
      await this.#saveIdle(sequence);
    }
    await this.#parts.store.settled();
  }

  #wait(ms: number): void {
    const limited = Math.min(ms, MAX_TIMER_MS);
    this.#timer = setTimeout(() => {
      this.#saveDue().finally(() => {
        this.#timer = undefined;
        const next = this.#nextDue();
        if (next !== undefined && !this.#isClosed) {
          this.#wait(Math.max(0, next - performance.now()));
        }
      });
    }, limited);
    this.#timer.unref();
  }

  async #saveDue(): Promise<void> {
    for (const [sequence, due] of this.#idle()) {
      if (due <= performance.now() && !this.#isClosed) {
        this.#considered.set(sequence, sequence.idleSince);
        await this.#saveIdle(sequence).catch(() => undefined);
      }
    }
  }

  #nextDue(): number | undefined {
    const dues = this.#idle().map(([, due]) => due);
    return dues.length === 0 ? undefined : Math.min(...dues);
  }

  /** The idle sequences that were not considered yet, with the time at which their save is due. */
  #idle(): [Sequence, number][] {
    const { engine, store } = this.#parts;
    return [...engine.sessions.leased]
      .filter((sequence) => !sequence.busy && this.#considered.get(sequence) !== sequence.idleSince)
      .map((sequence) => [sequence, sequence.idleSince + store.options.idleMs]);
  }

  async #saveIdle(sequence: Sequence): Promise<void> {
    const { engine, store } = this.#parts;
    await sequence.nextPrompt?.ready;
    const plan = this.#plan(sequence);
    if (plan === undefined) {
      return;
    }
    const { conversation, stored } = plan;
    if (stored !== undefined) {
      await this.#saveStored(conversation, stored);
    } else if (conversation.tokens.length < sequence.length) {
      // The sequence must be shortened to the part that is saved. An eviction does this without a race with the next
      // turn, and also keeps the state in memory.
      engine.sessions.evictIdle((other) => other === sequence);
      await store.settled();
    } else {
      await store.save(conversation, this.#captureIdle(sequence, conversation));
    }
  }

  async #saveStored(conversation: UnsavedConversation, stored: StoredState): Promise<void> {
    const { tokens, state } = stored;
    const end = this.#parts.engine.states.store.hold(stored);
    await this.#parts.store.save(conversation, Promise.resolve({ tokens, chunks: [], state, end }));
  }

  /** Waits for memory, and then captures the sequence if it is still idle and still has these tokens. */
  async #captureIdle(sequence: Sequence, { tokens, keyring }: UnsavedConversation): Promise<ContentsCopy | undefined> {
    const { states } = this.#parts.engine;
    const transfer = await states.waitForCopy(sequence);
    const { busy, isLeased, group } = sequence;
    if (busy || !isLeased || group !== keyring.group || !sameTokens(sequence.tokens, tokens)) {
      transfer.end();
      return undefined;
    }
    return states.captureCopy(sequence, false, transfer);
  }

  /** @returns undefined if the sequence is not worth a file */
  #plan(sequence: Sequence): Plan | undefined {
    const { engine, store, prefillEstimate, keyring: keyringOf } = this.#parts;
    const { kind, isAbandoned, busy, inProgress, group, templateLength, nextPrompt } = sequence;
    const { tenant, affinity, epoch } = sequence;
    const isUnfinished = busy || inProgress || (kind === 'request' && !isAbandoned);
    const keyring = keyringOf(tenant);
    // Tokens of another group were computed with other adapters.
    if (isUnfinished || keyring.group !== group || sequence.length <= templateLength) {
      return undefined;
    }
    const { length, stored } = this.#continuable(sequence);
    const msPerToken = engine.prefillMsPerToken || prefillEstimate.expectedPrefillMs(1);
    const tokens = sequence.tokens.slice(0, length);
    const promptTokens = Math.min(length, nextPrompt?.messageEnd ?? nextPrompt?.promptLength ?? length);
    const prefillMs = (length - templateLength) * msPerToken;
    const owner = { tenant, affinity, epoch };
    const isOneOff = kind === 'request';
    const conversation = { keyring, tokens, promptTokens, prefillMs, isOneOff, ...owner, replies: [] };
    const isWanted =
      length > templateLength &&
      store.admits(engine.states.captures.expectedBytes(length) ?? 0, conversation) &&
      !this.#isContinued(sequence, sequence.tokens, promptTokens) &&
      store.hasGrown(conversation);
    if (!isWanted) {
      return undefined;
    }
    // The newest reply counts even if only a part of the sequence is saved, because the next prompt contains this
    // reply.
    const replies = store.replies?.recordsFor(group, sequence.tokens) ?? [];
    return { conversation: { ...conversation, replies }, stored };
  }

  /** The longest part of a sequence from which the next prompt can continue. */
  #continuable(sequence: Sequence): { length: number; stored: StoredState | undefined } {
    const { engine } = this.#parts;
    const checkpoints = checkpointsOf(sequence).filter(({ isDropped }) => !isDropped);
    const longest = Math.max(0, ...checkpoints.map(({ tokens }) => tokens.length));
    const shared = sequence.nextPrompt?.shared ?? (longest || sequence.length);
    if (engine.canTrimRestored || shared >= sequence.length) {
      return { length: sequence.length, stored: undefined };
    }
    const length = sequence.trimmableLength(shared);
    const whole = longestCheckpoint(
      sequence,
      ({ isPartial, tokens }) => !isPartial && tokens.length > length && tokens.length <= shared,
    );
    return whole === undefined ? { length, stored: undefined } : { length: whole.tokens.length, stored: whole };
  }

  /** Drops the copy if another sequence now continues the conversation. */
  async #unlessContinued(
    sequence: Sequence,
    { tokens, promptTokens }: UnsavedConversation,
    captured: Promise<ContentsCopy | undefined>,
  ): Promise<ContentsCopy | undefined> {
    const copy = await captured;
    if (copy === undefined || !this.#isContinued(sequence, tokens, promptTokens)) {
      return copy;
    }
    copy.end();
    return undefined;
  }

  /** Whether another sequence holds, or is computing, a later state of the conversation. */
  #isContinued({ group }: Sequence, tokens: Int32Array, promptTokens: number): boolean {
    return [...this.#parts.engine.sessions.leased].some(
      (other) =>
        other.group === group &&
        (other.busy || other.length > tokens.length) &&
        prefixOfAtLeast(promptTokens, other.tokens, tokens) > 0,
    );
  }
}
