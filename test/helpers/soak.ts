// Long tests run with few repetitions and a part of their variants in `npm test`, and completely in `npm run test:soak`.
// That command runs test/soak and every test file that imports this file.
import { appendFileSync } from 'node:fs';

/** Returns the number of repetitions: `full` in `npm run test:soak`, else `few`. */
export function rounds(few: number, full: number): number {
  return process.env.LLAMA_HEADSTART_SOAK ? full : few;
}

/**
 * Returns the variants that a test runs: all variants in `npm run test:soak`, else only the variants that
 * `isRepresentative` selects. The selected variants must include each kind at least once.
 */
export function variants<T>(all: readonly T[], isRepresentative: (variant: T, index: number) => boolean): T[] {
  return all.filter((variant, index) => rounds(0, 1) === 1 || isRepresentative(variant, index));
}

/** Counts tries and failures for the last line of `npm run test:soak`. */
export class Tally {
  readonly what: string;
  readonly wrong: string[] = [];
  tried = 0;

  /** @param what a noun in the plural: 'kills during a save' */
  constructor(what: string) {
    this.what = what;
  }

  /** Runs one try. Counts an error as a failure instead of throwing it, so that the next try runs. */
  async try(detail: string, work: () => unknown): Promise<void> {
    this.tried++;
    try {
      await work();
    } catch (error) {
      this.wrong.push(`${detail}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** Reports the counts and returns the failures. A test expects an empty list. */
  done(): string[] {
    const file = process.env.LLAMA_HEADSTART_SOAK_REPORT;
    if (file) {
      appendFileSync(file, `${JSON.stringify({ what: this.what, tried: this.tried, wrong: this.wrong.length })}\n`);
    }
    return this.wrong;
  }
}
