/** The number of tokens that `a` and `b` share at their start. */
export function commonPrefixLength(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const limit = Math.min(a.length, b.length);
  let length = 0;
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
