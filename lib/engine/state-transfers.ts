// States that are being copied: captured, read, restored or written. Their bytes are outside the store.
import { waitInQueue } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { SequenceState } from '../native/state.js';
import type { StateOwner } from './state-store.js';

/** Frees bytes of the budget for this owner. @returns false if they cannot be freed; then nothing has changed */
export type MakeSpace = (bytes: number, owner: StateOwner) => boolean;

interface Waiter {
  owner: StateOwner;
  bytes: number | undefined;
  holdsCells: boolean;
  resolve(transfer: StateTransfer | undefined): void;
  reject(error: HeadstartError): void;
}

/**
 * All transfers of a store. A transfer reserves its bytes in the budget. One transfer at a time may exceed the budget
 * instead, so that a state larger than the budget can be saved and restored.
 */
export class StateTransfers {
  readonly #makeSpace: MakeSpace;
  readonly #running = new Set<StateTransfer>();
  /** The transfer that may exceed the budget. */
  #exceeding: StateTransfer | undefined;
  readonly #waiting: Waiter[] = [];
  #closed = false;

  constructor(makeSpace: MakeSpace) {
    this.#makeSpace = makeSpace;
  }

  /** Bytes of all transfers. */
  get bytes(): number {
    return [...this.#running].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Bytes that the transfers have reserved in the budget. */
  get reservedBytes(): number {
    return this.bytes - (this.#exceeding?.bytes ?? 0);
  }

  /** Bytes that one transfer has reserved in the budget: 0 if it exceeds the budget. */
  reservedBy(transfer: StateTransfer): number {
    return transfer === this.#exceeding ? 0 : transfer.bytes;
  }

  /**
   * Begins a transfer.
   *
   * @param bytes expected size of the state; undefined if it is unknown
   * @returns undefined if the bytes do not fit now and another transfer already exceeds the budget
   */
  begin(owner: StateOwner, bytes: number | undefined): StateTransfer | undefined {
    const fits = bytes !== undefined && this.#makeSpace(bytes, owner);
    if (this.#closed || (!fits && this.#exceeding !== undefined)) {
      return undefined;
    }
    const transfer: StateTransfer = new StateTransfer(owner, bytes ?? 0, {
      resize: (size) => this.#resize(transfer, size),
      onChanged: () => this.serveWaiting(),
      onEnd: () => this.#remove(transfer),
    });
    this.#running.add(transfer);
    this.#exceeding = fits ? this.#exceeding : transfer;
    return transfer;
  }

  /**
   * Like {@link begin}, but waits until the transfer is possible.
   *
   * @throws HeadstartError `ABORTED`, `CLOSED`.
   */
  async wait(owner: StateOwner, bytes: number | undefined, signal?: AbortSignal): Promise<StateTransfer> {
    return (await this.#wait(owner, bytes, false, signal)) as StateTransfer;
  }

  /**
   * Like {@link wait}, for a caller that holds KV cells. Such a caller must not wait for a transfer that may itself
   * wait for these cells.
   *
   * @returns undefined if the transfer that exceeds the budget waits for KV cells
   */
  waitWithCells(
    owner: StateOwner,
    bytes: number | undefined,
    signal?: AbortSignal,
  ): Promise<StateTransfer | undefined> {
    return this.#wait(owner, bytes, true, signal);
  }

  /** Begins the waiting transfers that are possible now. Call it when bytes of the budget were freed. */
  serveWaiting(): void {
    for (const waiter of [...this.#waiting]) {
      const { owner, bytes, holdsCells, resolve } = waiter;
      const transfer = this.begin(owner, bytes);
      if (transfer !== undefined || (holdsCells && this.#exceeding?.waitsForCells)) {
        this.#leaveQueue(waiter);
        resolve(transfer);
      }
    }
  }

  /** Refuses new transfers. Running transfers must still be ended. */
  close(): void {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) {
      reject(closedError());
    }
  }

  async #wait(
    owner: StateOwner,
    bytes: number | undefined,
    holdsCells: boolean,
    signal: AbortSignal | undefined,
  ): Promise<StateTransfer | undefined> {
    if (this.#closed) {
      throw closedError();
    }
    return waitInQueue<StateTransfer | undefined>(signal, (resolve, reject) => {
      const waiter = { owner, bytes, holdsCells, resolve, reject };
      // A caller that holds cells goes first. Otherwise this caller could wait for a restore that needs its cells.
      const index = holdsCells ? this.#waiting.findIndex((other) => !other.holdsCells) : -1;
      this.#waiting.splice(index < 0 ? this.#waiting.length : index, 0, waiter);
      this.serveWaiting();
      return () => this.#leaveQueue(waiter);
    });
  }

  #leaveQueue(waiter: Waiter): void {
    const index = this.#waiting.indexOf(waiter);
    if (index >= 0) {
      this.#waiting.splice(index, 1);
    }
  }

  /** @returns whether the transfer may have this size */
  #resize(transfer: StateTransfer, bytes: number): boolean {
    const fits = this.#makeSpace(bytes - this.reservedBy(transfer), transfer.owner);
    if (fits && transfer === this.#exceeding) {
      this.#exceeding = undefined;
    } else if (!fits) {
      this.#exceeding ??= transfer;
    }
    return fits || transfer === this.#exceeding;
  }

  #remove(transfer: StateTransfer): void {
    this.#running.delete(transfer);
    if (this.#exceeding === transfer) {
      this.#exceeding = undefined;
    }
    this.serveWaiting();
  }
}

interface TransferHost {
  /** @returns whether the transfer may have this size */
  resize(bytes: number): boolean;
  /** Called when the transfer has another size, or waits for KV cells. */
  onChanged(): void;
  onEnd(): void;
}

/** One transfer. A transfer owns its state until the transfer ends or the store takes the state. */
export class StateTransfer {
  readonly owner: StateOwner;
  readonly #host: TransferHost;
  #bytes: number;
  #state: SequenceState | undefined;
  #waitsForCells = false;
  #ended = false;

  constructor(owner: StateOwner, bytes: number, host: TransferHost) {
    this.owner = owner;
    this.#bytes = bytes;
    this.#host = host;
  }

  /** Size of the state; before it was copied, the expected size. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether the restore of the state waits for KV cells. */
  get waitsForCells(): boolean {
    return this.#waitsForCells;
  }

  setWaitsForCells(waits: boolean): void {
    this.#waitsForCells = waits;
    this.#host.onChanged();
  }

  /**
   * Takes ownership of the copied state. Its size replaces the expected one.
   *
   * @returns false if the state is larger than expected and does not fit. The state is then closed, and the transfer
   *   ends.
   */
  accept(state: SequenceState): boolean {
    const bytes = state.byteLength;
    if (this.#ended || !this.#host.resize(bytes)) {
      state.close();
      this.end();
      return false;
    }
    this.#state = state;
    this.#bytes = bytes;
    this.#host.onChanged();
    return true;
  }

  /** Ends the transfer. Its state stays open and belongs to the caller. */
  takeState(): void {
    this.#state = undefined;
    this.end();
  }

  /** Ends the transfer and closes its state. Idempotent. */
  end(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#state?.close();
      this.#host.onEnd();
    }
  }
}

function closedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected an open store of states, but it was closed');
}
