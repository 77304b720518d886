import { busy } from './http-error.js';

/** Counts the requests in progress, and refuses more than a maximum. */
export class Admission {
  readonly #maxRequests: number;
  #inProgress = 0;

  constructor(maxRequests: number) {
    this.#maxRequests = maxRequests;
  }

  /** Number of requests that are being answered or wait for a sequence. */
  get inProgress(): number {
    return this.#inProgress;
  }

  /**
   * Takes a place for a request.
   *
   * @returns a function that frees the place. Further calls do nothing
   * @throws HttpError 429.
   */
  enter(): () => void {
    if (this.#inProgress >= this.#maxRequests) {
      throw busy();
    }
    this.#inProgress++;
    let isInProgress = true;
    return () => {
      this.#inProgress -= Number(isInProgress);
      isInProgress = false;
    };
  }
}
