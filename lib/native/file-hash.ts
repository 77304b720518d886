import { addon, withAbort } from './addon.js';

/** Bytes hashed in one native call: what a restore waits for at most that comes meanwhile. */
const STEP_BYTES = 4 << 20;

/** Bytes of a file. */
export interface FileRange {
  /** The first. */
  offset: number;
  /** How many; of what lies behind the file's end there is nothing. */
  length: number;
}

/**
 * SHA-256 over ranges of files, read and hashed on a native I/O thread.
 */
export class FileHash {
  readonly #raw = new (addon().FileHash)();

  /**
   * Adds ranges of a file, one after another.
   *
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT` (no regular file), `READ_FAILED`, `ABORTED`.
   */
  async add(path: string, ranges: Iterable<FileRange>, signal?: AbortSignal): Promise<void> {
    for (const step of stepsOf(ranges)) {
      await withAbort(signal, (abort) => this.#raw.add(path, Float64Array.from(step), abort));
    }
  }

  /** The hash of all that was added, in hexadecimal. */
  async digest(): Promise<string> {
    return this.#raw.digest();
  }
}

/** Offsets and lengths, flat, of at most {@link STEP_BYTES} at a time. */
function* stepsOf(ranges: Iterable<FileRange>): Generator<number[]> {
  let step: number[] = [];
  let room = STEP_BYTES;
  for (const { offset, length } of ranges) {
    for (let done = 0; done < length; ) {
      const piece = Math.min(room, length - done);
      step.push(offset + done, piece);
      done += piece;
      room -= piece;
      if (room === 0) {
        yield step;
        step = [];
        room = STEP_BYTES;
      }
    }
  }
  if (step.length > 0) {
    yield step;
  }
}
