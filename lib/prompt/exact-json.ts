// Protects large integers in JSON: `JSON.parse` rounds integers beyond 2^53 without an error.
import { HeadstartError } from '../errors.js';
import type { ReplyFormat } from '../native/reply.js';

/** Matches the tokens that a search for numbers outside of strings needs: escapes, quotes and numbers. */
const TOKENS = /\\.|"|-?\d[\d.eE+-]*/gs;

/**
 * Replaces each integer that JavaScript would round. Integers in strings stay unchanged.
 *
 * @param json JSON, or any text
 */
export function replaceInexactIntegers(json: string, replace: (digits: string) => string): string {
  if (!/\d{16}/.test(json)) {
    return json; // shorter integers are exact
  }
  let isInString = false;
  return json.replace(TOKENS, (token) => {
    if (token === '"') {
      isInString = !isInString;
    }
    return !isInString && isInexactInteger(token) ? replace(token) : token;
  });
}

function isInexactInteger(text: string): boolean {
  const value = Number(text);
  return /^-?\d+$/.test(text) && !Number.isSafeInteger(value) && String(value) !== text;
}

/**
 * @param json JSON, or any text
 * @throws HeadstartError `SCHEMA_MISMATCH` if JavaScript would change the digits of an integer in it.
 */
export function requireExactIntegers(json: string): void {
  replaceInexactIntegers(json, (digits) => {
    throw new HeadstartError(
      'SCHEMA_MISMATCH',
      `Expected integers that JavaScript holds exactly (up to 2^53), got ${digits.slice(0, 50)}: ` +
        'use strings for larger integers',
    );
  });
}

/**
 * Allows longer numbers. llama.cpp's grammars end a number after 16 digits: a longer number would lose its last digits
 * without an error.
 */
export function withLongNumbers(format: ReplyFormat): ReplyFormat {
  const { grammar } = format;
  return { ...format, grammar: grammar.replace(SHORT_NUMBERS, `$1{0,${MORE_DIGITS}}`) };
}

const SHORT_NUMBERS = /^((?:[\w-]+-)?integral-part ::= \[0\] \| \[1-9\] \[0-9\])\{0,15\}$/gm;
/** Maximum number of digits after the first digit of a number. Enough for 128-bit integers. */
export const MORE_DIGITS = 38;
