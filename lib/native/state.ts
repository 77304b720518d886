import { addon, type RawState, toJson, unlessAborted, withAbort } from './addon.js';

/**
 * The KV state of a sequence, outside the JavaScript heap: its token ids and the bytes that llama.cpp restores. Made by
 * {@link Context.captureSequence} and {@link SequenceState.readFile}. It can be restored any number of times.
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
   * Reads and checks a file that {@link writeFile} wrote. Its checksum is verified before llama.cpp sees a byte.
   *
   * @param options.unverified read a file without this package's footer, as llama.cpp writes it. A malformed file can make the context
   *   unusable until `clear()`, or end the process: use it only for files that you wrote yourself. @default false
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT`, `ENTRY_FOREIGN`, `READ_FAILED`, `ABORTED`, `OUT_OF_MEMORY`,
   *   `INVALID_ARGUMENT`.
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
   * The metadata at the end of a file, without reading its state or verifying its checksum.
   *
   * @throws HeadstartError as {@link readFile}.
   */
  static async readMetadata(path: string): Promise<Record<string, unknown>> {
    return JSON.parse(await addon().readFooter(path)) as Record<string, unknown>;
  }

  /**
   * Prepares memory for the next {@link readFile} or capture of about this size. The system needs as long to provide new memory as the
   * file takes to read, and several times longer on a virtual machine.
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

  /** The metadata in the file of the state; empty for a captured state. */
  get metadata(): Record<string, unknown> {
    const text = this.raw.metadata();
    return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
  }

  /**
   * Writes a new file and syncs it: llama.cpp's own sequence-state file, followed by a footer. The file must not exist: to replace a
   * file, write another one in its directory and rename that. After a failure no file is left.
   *
   * @returns the size of the file in bytes
   * @param metadata JSON data, at most 64 levels deep and 1 MiB as text
   * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`, `ABORTED`, `JSON_TOO_DEEP`, `INVALID_ARGUMENT`.
   */
  async writeFile(
    path: string,
    metadata: object = {},
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<number> {
    const json = toJson('metadata', metadata);
    return withAbort(options?.signal, (abort) => this.raw.writeFile(path, json, { ...(abort && { abort }) }));
  }

  /** Another handle to the same bytes. They stay in memory until the last handle is closed. */
  share(): SequenceState {
    return new SequenceState(this.raw.share());
  }

  /** Frees the bytes, after restores and writes in progress. Idempotent. */
  close(): void {
    this.raw.close();
  }

  /** The same as {@link close}, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
