// Copies states out of sequences and back into them.
import { combinedSignal } from '../abort.js';
import type { Engine } from '../engine/engine.js';
import type { Sequence } from '../engine/sequence.js';
import type { StateOwner, StateStore } from '../engine/state-store.js';
import type { StateTransfer } from '../engine/state-transfers.js';
import { HeadstartError } from '../errors.js';
import type { Logger } from '../logger.js';
import type { SequenceState } from '../native/state.js';
import type { DiskLookup } from './disk/disk-store.js';
import type { StartRequest } from './start-request.js';

/** A state that is in memory, but not in the store yet. */
export interface CopiedState {
  state: SequenceState;
  /** Owns the state. */
  transfer: StateTransfer;
}

/** Rethrows an error that ends the request. After other errors of a copy, the request can use another source. */
export function rethrowStop(error: unknown): void {
  if (HeadstartError.isInstance(error, 'CLOSED') || HeadstartError.isInstance(error, 'ABORTED')) {
    throw error;
  }
}

export interface StateCopierParts {
  engine: Engine;
  states: StateStore;
  logger: Logger | undefined;
}

/**
 * Maximum time that a start waits for the save of another large template, ms. Without a limit, a hanging disk would
 * block the start.
 */
const MAX_WAIT_MS = 30_000;

/**
 * Copies states, and counts their bytes as transfers. A failed copy is never an error, because the template can be
 * prefilled instead.
 */
export class StateCopier {
  readonly #parts: StateCopierParts;
  readonly #maxWaitMs: number;

  constructor(parts: StateCopierParts, maxWaitMs = MAX_WAIT_MS) {
    this.#parts = parts;
    this.#maxWaitMs = maxWaitMs;
  }

  /**
   * Captures the state of a sequence. If this state does not fit into the memory budget, waits while another state
   * exceeds the budget.
   *
   * @returns undefined if the state could not be captured
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async capture(
    { sequence, signal }: Pick<StartRequest, 'sequence' | 'signal'>,
    owner: StateOwner,
  ): Promise<CopiedState | undefined> {
    const { engine, logger } = this.#parts;
    const transfer = await this.#captureTransfer(owner, sequence.length, signal);
    if (transfer === undefined) {
      logger?.('warn', 'template cache: not captured, another state already exceeds `maxMemoryBytes`');
      return undefined;
    }
    try {
      const captured = await engine.states.captures.capture(transfer, sequence);
      if (captured !== undefined) {
        return { state: captured.state, transfer };
      }
      transfer.end();
      logger?.('warn', 'template cache: not captured, not enough memory: raise `maxMemoryBytes`');
    } catch (error) {
      transfer.end();
      if (HeadstartError.isInstance(error, 'CLOSED')) {
        throw error;
      }
      logger?.('warn', `template cache: not captured, ${String(error)}`);
    }
    return undefined;
  }

  /**
   * Reads a state from disk. If the state does not fit into the memory budget, waits while another state exceeds the
   * budget.
   *
   * @param bytes size of the file; 0 if it is unknown
   * @returns the read state and when the read began, or the reason why the state cannot be used
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async read(
    { key, signal }: StartRequest,
    bytes: number,
    read: () => Promise<DiskLookup>,
  ): Promise<(CopiedState & { prefillMs: number; begin: number }) | string> {
    const transfer = await this.#parts.states.transfers.wait({ kind: 'template', key }, bytes, signal);
    const begin = performance.now();
    try {
      const lookup = await read();
      if (lookup.state === undefined) {
        transfer.end();
        return lookup.reason;
      }
      const { state, prefillMs } = lookup;
      return transfer.accept(state)
        ? { state, transfer, prefillMs, begin }
        : 'unreadable: the file has grown and is too large for the memory budget';
    } catch (error) {
      transfer.end();
      throw error;
    }
  }

  /**
   * Restores a state into the empty sequence of the request.
   *
   * @param transfer the transfer that owns the state, if it is not in the store
   * @returns the reason if the restore failed: the sequence is then empty
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async restore(
    { sequence, signal }: StartRequest,
    state: SequenceState,
    transfer?: StateTransfer,
  ): Promise<string | undefined> {
    const { engine, logger } = this.#parts;
    try {
      await engine.withCells(() => this.#tryRestore(sequence, state, transfer), signal, sequence);
      return undefined;
    } catch (error) {
      rethrowStop(error);
      logger?.('warn', `template cache: ${String(error)}`);
      await sequence.clear();
      return `not restored: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** @returns undefined after too long a wait, or if another restore may wait for the KV cells of this start */
  async #captureTransfer(owner: StateOwner, tokens: number, signal: AbortSignal): Promise<StateTransfer | undefined> {
    const { captures } = this.#parts.engine.states;
    const limit = AbortSignal.timeout(this.#maxWaitMs);
    try {
      return await captures.waitWithCells(owner, tokens, combinedSignal(signal, limit));
    } catch (error) {
      if (HeadstartError.isInstance(error, 'ABORTED') && !signal.aborted) {
        return undefined;
      }
      throw error;
    }
  }

  /**
   * Tells the transfer whether its restore waits for KV cells. If it does, starts that hold cells must not wait for
   * this transfer.
   */
  async #tryRestore(sequence: Sequence, state: SequenceState, transfer: StateTransfer | undefined): Promise<void> {
    try {
      await sequence.restore(state);
    } catch (error) {
      transfer?.setWaitsForCells(HeadstartError.isInstance(error, 'NO_KV_SLOT'));
      throw error;
    }
    transfer?.setWaitsForCells(false);
  }
}
