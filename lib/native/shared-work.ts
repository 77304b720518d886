import { orAborted } from '../abort.js';

/**
 * Runs work once for all concurrent callers. Each caller has its own abort signal. When the last caller has aborted,
 * the run is aborted too.
 */
export class SharedWork<Result> {
  readonly #start: (signal: AbortSignal) => Promise<Result>;
  #run: { result: Promise<Result>; waiting: number; abort: AbortController } | undefined;

  constructor(start: (signal: AbortSignal) => Promise<Result>) {
    this.#start = start;
  }

  /** Waits for the current run, or starts one. @throws HeadstartError `ABORTED`, or the error of the work. */
  async join(signal: AbortSignal | undefined): Promise<Result> {
    if (this.#run === undefined) {
      const abort = new AbortController();
      this.#run = { result: this.#start(abort.signal), waiting: 0, abort };
    }
    const run = this.#run;
    run.waiting++;
    try {
      return await orAborted(run.result, signal);
    } finally {
      run.waiting--;
      if (run.waiting === 0) {
        run.abort.abort(signal?.reason);
        if (this.#run === run) {
          this.#run = undefined; // later callers must not join an aborted run
        }
      }
    }
  }
}
