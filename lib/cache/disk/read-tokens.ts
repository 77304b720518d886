import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** If a named pipe or a link has the name of an entry, opening it must not wait for a writer or follow the link. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);

/** Size of the header in front of the tokens of an entry, in bytes. */
const TOKENS_OFFSET = 12;

/** No context has as many tokens. Node.js aborts if it must read 2 GiB at once. */
const MAX_TOKENS = 2 ** 28;

/**
 * Reads the token ids after the header of an entry. The ids are unverified: the caller must compare them with the tokens
 * of the verified state.
 *
 * @param count how many tokens the entry probably has
 * @returns no tokens if the file cannot be read
 */
export async function readTokens(path: string, count: number): Promise<Int32Array> {
  const file = await open(path, READ_FLAGS).catch(() => undefined);
  try {
    const { size = 0 } = (await file?.stat()) ?? {};
    const tokens = new Int32Array(Math.min(count, MAX_TOKENS, Math.floor((size - TOKENS_OFFSET) / 4)));
    await file?.read(new Uint8Array(tokens.buffer), 0, tokens.byteLength, TOKENS_OFFSET);
    return tokens;
  } catch {
    return new Int32Array();
  } finally {
    await file?.close();
  }
}
