import { addon, type RawState, toJson, unlessAborted, withAbort } from './addon.js';

/** Selects the whole state of a sequence or a part of it. */
export interface StateOptions {
  /**
   * Select only the part of the state that cannot be trimmed: recurrent state and the cells of sliding windows. The
   * rest stays in the sequence, and {@link Context.restoreSequence} needs it there. Such states exist only if the
   * memory of the context cannot be trimmed: for recurrent and hybrid models, and for sliding windows without
   * `fullSlidingWindow`.
   * @default false
   */
  partial?: boolean | undefined;
}

/** Options of {@link Context.captureSequence}. */
export interface CaptureOptions extends StateOptions {
  /** The maximum size of the state in bytes. No memory is allocated for a larger state. @default no limit */
  maxBytes?: number | undefined;
  /**
   * Prevents the copy if the signal fires before the copy starts. If the signal fires later, the new state is closed.
   * @default none
   */
  signal?: AbortSignal | undefined;
}

/**
 * The KV state of a sequence: its token ids, and the bytes that llama.cpp restores. The state is outside the JavaScript
 * heap and can be restored any number of times. Create one with {@link Context.captureSequence} or
 * {@link SequenceState.readFile}.
 *
 * Every method but `close` throws `CLOSED` after `close()`.
 */
export class SequenceState {
  /** @internal */
  readonly raw: RawState;

  /** @internal */
  constructor(raw: RawState) {
    this.raw = raw;
  }

  /**
   * Reads and checks a file that {@link writeFile} wrote. The checksum is verified before llama.cpp receives any byte.
   *
   * @param options.unverified read a file that llama.cpp wrote, without this package's footer. A malformed file can
   *   make the context unusable until `clear()`, or end the process. Set it only for files that you wrote yourself.
   *   @default false
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT`, `ENTRY_FOREIGN`, `READ_FAILED`, `ABORTED`,
   *   `OUT_OF_MEMORY`, `INVALID_ARGUMENT`.
   */
  static async readFile(
    path: string,
    options: { unverified?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<SequenceState> {
    const { signal, ...rest } = options ?? {};
    return unlessAborted(
      signal,
      async (abort) => new SequenceState(await addon().SequenceState.readFile(path, { ...rest, abort })),
      (state) => state.close(),
    );
  }

  /**
   * Reads the metadata at the end of a file. Does not read the state, and does not verify the checksum.
   *
   * @throws HeadstartError as {@link readFile}.
   */
  static async readMetadata(path: string): Promise<Record<string, unknown>> {
    return JSON.parse(await addon().readFooter(path)) as Record<string, unknown>;
  }

  /**
   * Prepares memory for the next {@link readFile} or capture of about this size. This saves time later: the system
   * needs as long to provide new memory as to read the file, and several times longer on a virtual machine.
   *
   * @param bytes 1 to 268,435,456 (256 MiB)
   * @throws HeadstartError `INVALID_ARGUMENT`, `OUT_OF_MEMORY`.
   */
  static async reserve(bytes: number): Promise<void> {
    return addon().SequenceState.reserve(bytes);
  }

  /** A copy of the token ids, one for each position from 0 on. */
  get tokens(): Int32Array {
    return this.raw.tokens();
  }

  /** Size of the state in bytes. */
  get byteLength(): number {
    return this.raw.byteLength();
  }

  /** Whether the state holds only the part that cannot be trimmed ({@link StateOptions.partial}). */
  get isPartial(): boolean {
    return this.raw.isPartial();
  }

  /** The metadata in the state's file. Empty for a captured state. */
  get metadata(): Record<string, unknown> {
    const text = this.raw.metadata();
    return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
  }

  /**
   * Writes a new file and syncs it. The file has llama.cpp's own sequence-state format, followed by a footer. The path
   * must not exist. To replace a file, write another file in its directory and rename that file. A failed write leaves
   * no file.
   *
   * @returns the size of the file in bytes
   * @param metadata JSON data, at most 64 levels deep and 1 MiB as text
   * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`, `ABORTED`, `JSON_TOO_DEEP`, `INVALID_ARGUMENT` (also for a
   *   partial state).
   */
  async writeFile(
    path: string,
    metadata: object = {},
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    const json = toJson('metadata', metadata);
    return withAbort(options?.signal, (abort) => this.raw.writeFile(path, json, { ...(abort && { abort }) }));
  }

  /** Returns another handle to the same bytes. The bytes stay in memory until the last handle is closed. */
  share(): SequenceState {
    return new SequenceState(this.raw.share());
  }

  /**
   * Closes this handle. When the last handle is closed, the bytes are freed as soon as no restore or write uses them.
   * Idempotent.
   */
  close(): void {
    this.raw.close();
  }

  /** The same as {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
