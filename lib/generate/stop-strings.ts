/**
 * Searches a growing text for strings that end it. Holds back text that may be the beginning of a stop string until
 * more text arrives. So it never returns a part of a stop string.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';
  /** The stop string that ended the text. */
  matched: string | undefined;

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** @returns the text that has become certain. Always empty after a stop string was found. */
  push(text: string): string {
    if (this.matched !== undefined || this.#stops.length === 0) {
      return this.matched === undefined ? text : '';
    }
    const all = this.#held + text;
    let end = all.length;
    for (const stop of this.#stops) {
      const at = all.indexOf(stop);
      if (at >= 0 && (at < end || this.matched === undefined)) {
        end = at;
        this.matched = stop;
      }
    }
    if (this.matched === undefined) {
      end -= Math.max(...this.#stops.map((stop) => overlap(all, stop)));
      this.#held = all.slice(end);
    } else {
      this.#held = '';
    }
    return all.slice(0, end);
  }

  /** Returns the text that was held back. Call it at the end of the text. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }
}

/** The number of characters at the end of `text` that are the beginning of `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) {
      return length;
    }
  }
  return 0;
}
