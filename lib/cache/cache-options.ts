// The options of the template cache.
import { totalmem } from 'node:os';
import {
  boolean,
  type Group,
  group,
  integer,
  type OptionsOf,
  oneOf,
  type ResolvedOf,
  size,
  switchable,
  value,
} from '../option-types.js';
import {
  CONVERSATION_OPTIONS,
  type ConversationOptions,
  type ResolvedConversationOptions,
} from './conversation-options.js';
import { BUDGET } from './disk/eviction.js';

const MEBIBYTE = 1024 ** 2;

const MIN_MEMORY_BYTES = 512 * MEBIBYTE;

export const CACHE = {
  /**
   * The directory that keeps templates for other processes and after restarts. `null` keeps templates in this process
   * only.
   *
   * @default the environment variable `LLAMA_HEADSTART_CACHE_DIR`, else '.cache/templates'
   */
  dir: value<string | null>(
    (dir) => dir === null || (typeof dir === 'string' && dir !== ''),
    'a path or null',
  ).optional(),
  /** Accept a directory that other users can write to. Those users could change replies. @default false */
  allowSharedDirectory: boolean().default(false),
  /**
   * Budget of all KV states in this process's memory, outside the KV cache, in bytes. Templates, conversations and
   * checkpoints share it.
   *
   * @default the larger of 512 MiB and one eighth of physical memory
   */
  maxMemoryBytes: size().optional(),
  ...BUDGET,
  /**
   * Free disk space that a save must leave, in bytes. A template is not saved if the save would leave less.
   *
   * @default the larger of 5 % and 2 GiB
   */
  minFreeDiskBytes: size().optional(),
  /**
   * Keep conversations in the cache directory too, so that they continue after a restart without a prefill. Applies to
   * requests of `agent.chat` and to sessions. `true` means the defaults of the group. @default false
   */
  conversations: switchable(CONVERSATION_OPTIONS as Group<ConversationOptions, ResolvedConversationOptions>).default(
    false,
  ),
  /** Templates of fewer tokens bypass the cache. @default 0 */
  minTokens: integer(0).default(0),
  /** Bypass the cache if prefills were measured to be no slower than restores. @default false */
  breakEven: boolean().default(false),
  /**
   * `nearest`: a template without an entry starts from the cached template with the longest common prefix. `exact`:
   * only a whole template is reused. @default 'nearest', with `reproducible` 'exact'
   */
  reuse: oneOf('exact', 'nearest').optional(),
  /**
   * Save separate entries for the states after the system prompt and after the tools of each server. If a tool changes,
   * models whose state cannot be trimmed then start from the nearest of these entries. @default false
   */
  breakpoints: boolean().default(false),
  /**
   * Sort the tools of MCP servers by server and name, so that another order in a server's list causes no miss.
   *
   * @default true
   */
  stableTools: boolean().default(true),
  /**
   * Maximum number of resident templates. A resident template stays in the KV cache, so that sessions can fork it.
   * @default 4, with `kvLayout` 'split' 0
   */
  maxResidentTemplates: integer(0, 255).optional(),
  /** Maximum number of KV cells of all resident templates, one cell per token. @default half of kvCells */
  maxResidentCells: integer(0).optional(),
  /**
   * Deprecated: no effect. The states of sessions share the budget `maxMemoryBytes`.
   *
   * @default 268435456 (256 MiB)
   * @deprecated Use `maxMemoryBytes`.
   */
  maxSavedBytes: size().default(256 * MEBIBYTE),
};

/** Options of the template cache: its directory, its budgets, and when it is used. */
export interface CacheOptions extends OptionsOf<typeof CACHE> {}
export type ResolvedCacheOptions = ResolvedOf<typeof CACHE>;

export const CACHE_OPTIONS = group(CACHE);

/**
 * The default of `maxMemoryBytes`.
 *
 * @param physical bytes of physical memory
 * @param limit memory limit of this process, for example in a container; 0 if the limit is unknown, larger than
 *   `physical` if there is no limit
 */
export function defaultMemoryBytes(physical = totalmem(), limit = process.constrainedMemory()): number {
  return Math.max(MIN_MEMORY_BYTES, Math.floor(Math.min(physical, limit || physical) / 8));
}
