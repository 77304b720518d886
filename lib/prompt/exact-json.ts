// Integers in JSON that a model or a program writes. `JSON.parse` rounds those beyond 2^53 and says nothing.
import { HeadstartError } from '../errors.js';
import type { ReplyFormat } from '../native/reply.js';

/** Strings, and numbers outside of them. */
const STRINGS_AND_NUMBERS = /"(?:[^"\\]+|\\.)*"|-?\d[\d.eE+-]*/gs;

/**
 * @param json JSON, or any text
 * @throws HeadstartError `SCHEMA_MISMATCH` if JavaScript would change the digits of an integer in it.
 */
export function requireExactIntegers(json: string): void {
  if (!/\d{16}/.test(json)) {
    return; // shorter ones are exact
  }
  for (const [text] of json.matchAll(STRINGS_AND_NUMBERS)) {
    const value = Number(text);
    if (/^-?\d+$/.test(text) && !Number.isSafeInteger(value) && String(value) !== text) {
      throw new HeadstartError(
        'SCHEMA_MISMATCH',
        `Expected integers that JavaScript holds exactly (up to 2^53), got ${text.slice(0, 50)}: take larger ones as strings`,
      );
    }
  }
}

/** llama.cpp's grammars end a number after 16 digits. The rest of a longer one would be lost, and what is left would look right. */
export function withLongNumbers(format: ReplyFormat): ReplyFormat {
  const { grammar } = format;
  return { ...format, grammar: grammar.replace(SHORT_NUMBERS, `$1{0,${MORE_DIGITS}}`) };
}

const SHORT_NUMBERS = /^((?:[\w-]+-)?integral-part ::= \[0\] \| \[1-9\] \[0-9\])\{0,15\}$/gm;
/** Digits of a number after the first: enough for 128 bits. */
export const MORE_DIGITS = 38;
