// How options are checked, wherever they come in: unknown names, and wrong values.
import { type ErrorCode, HeadstartError } from './errors.js';

/** @returns what was expected, where the value is not it */
export type Check = (value: unknown) => string | undefined;

export const integer =
  (min: number, max = 2 ** 28): Check =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : `an integer from ${min} to ${max}`;
export const boolean: Check = (value) => (typeof value === 'boolean' ? undefined : 'a boolean');
export const text: Check = (value) => (typeof value === 'string' && value !== '' ? undefined : 'a non-empty string');
export const oneOf =
  (...values: string[]): Check =>
  (value) =>
    values.includes(value as string) ? undefined : `one of ${values.join(', ')}`;

/**
 * Checks an options object against its known fields, and names the nearest for one that is not known.
 *
 * @throws HeadstartError `code`.
 */
export function checkOptions(
  options: unknown,
  checks: Record<string, Check | undefined>,
  where: string,
  code: ErrorCode = 'CONFIG_INVALID',
): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new HeadstartError(code, `Expected ${where} to be an object, got ${describe(options)}`);
  }
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(checks, name)) {
      const nearest = nearestName(name, Object.keys(checks));
      throw new HeadstartError(
        code,
        `Unknown option \`${name}\` in ${where}${nearest ? `: did you mean \`${nearest}\`?` : ''}`,
      );
    }
    const expected = value === undefined ? undefined : checks[name]?.(value);
    if (expected !== undefined) {
      throw new HeadstartError(code, `Expected \`${name}\` in ${where} to be ${expected}, got ${describe(value)}`);
    }
  }
}

/** A value for a message. */
export function describe(value: unknown): string {
  if (typeof value === 'string') {
    return JSON.stringify(value);
  }
  return value === null || ['number', 'boolean', 'undefined'].includes(typeof value)
    ? String(value)
    : `a value of type ${typeof value}`;
}

/** The known name within two edits, in any case. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const scored = known.map((candidate) => ({
    candidate,
    distance: editDistance(name.toLowerCase(), candidate.toLowerCase()),
  }));
  scored.sort((a, b) => a.distance - b.distance);
  const best = scored[0];
  return best !== undefined && best.distance <= Math.max(2, name.length / 3) ? best.candidate : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
