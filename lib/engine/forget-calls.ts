/** The owner of a sequence's contents. */
export interface ContentOwner {
  tenant?: string | undefined;
  /** See `Sequence.affinity`. */
  affinity?: string | undefined;
}

/** Whether the program wants contents of this owner to be forgotten. */
export type IsForgotten = (owner: ContentOwner) => boolean;

/** Contents that something may keep. */
export interface DatedContents extends ContentOwner {
  /** The value of {@link ForgetCalls.count} when the request arrived that computed the contents. */
  epoch: number;
}

/** How many of the newest calls are remembered. */
const MAX_CALLS = 4096;

/**
 * The calls of `forget`. A call concerns all contents of requests that arrived before the call, even if a request is
 * still being rendered, or a copy of its contents is still being captured or written. So whatever keeps contents asks
 * {@link concern} at the moment at which it begins to keep them.
 */
export class ForgetCalls {
  readonly #calls: IsForgotten[] = [];
  /** The number of older calls, which are no longer in the list. */
  #older = 0;

  /** The number of calls so far. */
  get count(): number {
    return this.#older + this.#calls.length;
  }

  add(isForgotten: IsForgotten): void {
    this.#calls.push(isForgotten);
    if (this.#calls.length > MAX_CALLS) {
      this.#calls.shift();
      this.#older++;
    }
  }

  /** Whether contents must not be kept. If the calls that decide this are not in the list, the result is true. */
  concern(contents: DatedContents): boolean {
    const first = contents.epoch - this.#older;
    return first < 0 || this.#calls.slice(first).some((isForgotten) => isForgotten(contents));
  }
}
