import { orAborted } from '../abort.js';

/** One run of some work for all who want its result at the same time. Each can be aborted alone; the run ends with the last. */
export class SharedWork<Result> {
  readonly #start: (signal: AbortSignal) => Promise<Result>;
  #run: { result: Promise<Result>; waiting: number; abort: AbortController } | undefined;

  constructor(start: (signal: AbortSignal) => Promise<Result>) {
    this.#start = start;
  }

  /** @throws HeadstartError `ABORTED`, and whatever the work throws. */
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
          this.#run = undefined; // who comes now must not join what is being aborted
        }
      }
    }
  }
}
