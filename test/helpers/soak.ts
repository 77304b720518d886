// Fault tests run in two forms: bounded in time under `npm test`, in full under `npm run test:soak`.
import { appendFileSync } from 'node:fs';

/** The full count under `npm run test:soak`, else the small one. */
export function rounds(few: number, full: number): number {
  return process.env.LLAMA_HEADSTART_SOAK ? full : few;
}

/** Counts what was tried and what went wrong, for the last line of `npm run test:soak`. */
export class Tally {
  readonly what: string;
  readonly wrong: string[] = [];
  tried = 0;

  /** @param what in the plural: 'kills during a save' */
  constructor(what: string) {
    this.what = what;
  }

  /** Runs one try; what it throws is counted, and the next one goes on. */
  async try(detail: string, work: () => unknown): Promise<void> {
    this.tried++;
    try {
      await work();
    } catch (error) {
      this.wrong.push(`${detail}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** Writes the line, and gives back what went wrong: expect it to be empty. */
  done(): string[] {
    const file = process.env.LLAMA_HEADSTART_SOAK_REPORT;
    if (file) {
      appendFileSync(file, `${JSON.stringify({ what: this.what, tried: this.tried, wrong: this.wrong.length })}\n`);
    }
    return this.wrong;
  }
}
