/**
 * Watches a text for strings that end it. What may be the beginning of one is held back until that is decided, so that no
 * part of a stop string is ever passed on.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = '';
  /** The one that was found. */
  found: string | undefined;

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** @returns the text that is certain, of all that was pushed; nothing more once a stop string was found */
  push(text: string): string {
    if (this.found !== undefined || this.#stops.length === 0) {
      return this.found === undefined ? text : '';
    }
    const all = this.#held + text;
    let end = all.length;
    for (const stop of this.#stops) {
      const at = all.indexOf(stop);
      if (at >= 0 && (at < end || this.found === undefined)) {
        end = at;
        this.found = stop;
      }
    }
    if (this.found === undefined) {
      end -= Math.max(...this.#stops.map((stop) => overlap(all, stop)));
      this.#held = all.slice(end);
    } else {
      this.#held = '';
    }
    return all.slice(0, end);
  }

  /** What was held back, once no more text comes. */
  flush(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }
}

/** How many characters at the end of `text` begin `stop`. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) {
      return length;
    }
  }
  return 0;
}
