/** The number of tokens that `a` and `b` share at their start. */
export function commonPrefixLength(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return extendPrefix(a, b, 0);
}

/**
 * Like {@link commonPrefixLength}, but 0 if the arrays share fewer than `minimum` tokens. Arrays that have a long
 * beginning in common and then differ are recognized after a few comparisons, because the last of the `minimum` tokens
 * are compared first.
 */
export function prefixOfAtLeast(minimum: number, a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (minimum > a.length || minimum > b.length) {
    return 0;
  }
  for (let index = minimum - 1; index >= 0; index--) {
    if (a[index] !== b[index]) {
      return 0;
    }
  }
  return extendPrefix(a, b, minimum);
}

/** @param from number of tokens at the start that are known to be equal */
function extendPrefix(a: ArrayLike<number>, b: ArrayLike<number>, from: number): number {
  const limit = Math.min(a.length, b.length);
  let length = from;
  while (length < limit && a[length] === b[length]) {
    length++;
  }
  return length;
}

/** Whether `tokens` begins with all of `prefix`. */
export function isPrefix(prefix: Int32Array, tokens: Int32Array): boolean {
  return commonPrefixLength(prefix, tokens) === prefix.length;
}

export function sameTokens(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && commonPrefixLength(a, b) === a.length;
}

export function concatTokens(lists: readonly ArrayLike<number>[]): Int32Array {
  const all = new Int32Array(lists.reduce((total, list) => total + list.length, 0));
  let at = 0;
  for (const list of lists) {
    all.set(list, at);
    at += list.length;
  }
  return all;
}

/** Hashes a growing list of tokens. Two different lists have the same hash with a probability of about 2^-53. */
export class TokenHash {
  #low = 0x811c9dc5;
  #high = 0x9747b28c;

  add(tokens: Iterable<number>): void {
    for (const token of tokens) {
      this.push(token);
    }
  }

  push(token: number): void {
    this.#low = Math.imul(this.#low ^ token, 0x9e3779b1);
    this.#low ^= this.#low >>> 15;
    this.#high = Math.imul(this.#high ^ token, 0x85ebca6b);
    this.#high ^= this.#high >>> 13;
  }

  /** An integer of 53 bits. */
  get value(): number {
    return (this.#high >>> 11) * 2 ** 32 + (this.#low >>> 0);
  }
}
