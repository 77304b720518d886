/** Makes random choices. The same seed gives the same choices on every machine. */
export class Chance {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** Returns a number from 0 up to, but not including, 1. The algorithm is Mulberry32. */
  number() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Returns true with this probability. */
  happens(probability) {
    return this.number() < probability;
  }

  /** Returns an integer from 0 to limit - 1. */
  below(limit) {
    return Math.floor(this.number() * limit);
  }

  pick(list) {
    return list[this.below(list.length)];
  }
}
