/** The longest text with which both texts begin. */
export function commonStart(a: string, b: string): string {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) {
    length++;
  }
  return a.slice(0, length);
}

/** The longest text with which both texts end. */
export function commonEnd(a: string, b: string): string {
  const limit = Math.min(a.length, b.length);
  let length = 0;
  while (length < limit && a[a.length - 1 - length] === b[b.length - 1 - length]) {
    length++;
  }
  return a.slice(a.length - length);
}
