import { addon, withAbort } from './addon.js';

/** Bytes hashed in one native call. A restore that is queued on the same thread waits for at most one such call. */
const STEP_BYTES = 4 << 20;

/** A range of bytes in a file. */
export interface FileRange {
  /** The first byte. */
  offset: number;
  /** The number of bytes. If the range extends beyond the end of the file, only the existing bytes are hashed. */
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
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT` (not a regular file), `READ_FAILED`, `ABORTED`.
   */
  async add(path: string, ranges: Iterable<FileRange>, signal?: AbortSignal): Promise<void> {
    for (const step of stepsOf(ranges)) {
      await withAbort(signal, (abort) => this.#raw.add(path, Float64Array.from(step), abort));
    }
  }

  /** The hash of all added ranges, in hexadecimal. */
  async digest(): Promise<string> {
    return this.#raw.digest();
  }
}

/** Splits ranges into steps of at most {@link STEP_BYTES}. A step alternates offsets and lengths. */
function* stepsOf(ranges: Iterable<FileRange>): Generator<number[]> {
  let step: number[] = [];
  let left = STEP_BYTES;
  for (const { offset, length } of ranges) {
    for (let done = 0; done < length; ) {
      const piece = Math.min(left, length - done);
      step.push(offset + done, piece);
      done += piece;
      left -= piece;
      if (left === 0) {
        yield step;
        step = [];
        left = STEP_BYTES;
      }
    }
  }
  if (step.length > 0) {
    yield step;
  }
}
