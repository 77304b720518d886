// The options of conversations on disk.
import { statfs } from 'node:fs/promises';
import { group, number, type OptionsOf, type ResolvedOf, size } from '../option-types.js';

const GIBIBYTE = 1024 ** 3;

export const CONVERSATIONS = {
  /**
   * Maximum size of the conversations in the cache directory, in bytes. The conversations of one-off requests are
   * deleted first, and then the least recently used conversations.
   *
   * @default the smaller of 8 GiB and a tenth of the free disk space
   */
  maxBytes: size().optional(),
  /** Maximum time since the last use of a conversation, in ms. @default 604800000 (7 days) */
  maxAgeMs: size().default(7 * 24 * 3_600_000),
  /** Time without a request after which a conversation is saved, in ms. @default 600000 (10 minutes) */
  idleMs: size().default(600_000),
  /** Maximum number of bytes that this process writes within an hour. @default 8589934592 (8 GiB) */
  maxBytesPerHour: size().default(8 * GIBIBYTE),
  /**
   * A conversation is saved only if a prefill of its tokens takes more than this many times as long as the write and
   * the read of its state. @default 2
   */
  minSpeedup: number(0, 1000).default(2),
};

/** Options of conversations on disk. */
export interface ConversationOptions extends OptionsOf<typeof CONVERSATIONS> {}
export type ResolvedConversationOptions = ResolvedOf<typeof CONVERSATIONS>;

export const CONVERSATION_OPTIONS = group(CONVERSATIONS);

/**
 * The default of `maxBytes`.
 *
 * @param directory the cache directory
 * @param used bytes of the conversations in the directory
 */
export async function defaultConversationBytes(directory: string, used: number): Promise<number> {
  const disk = await statfs(directory).catch(() => undefined);
  const free = disk === undefined ? 0 : disk.bavail * disk.bsize;
  return Math.min(8 * GIBIBYTE, Math.floor((free + used) / 10));
}
