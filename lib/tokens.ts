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

export function sameTokens(a: Int32Array, b: Int32Array): boolean {
  return a.length === b.length && isPrefix(a, b);
}
