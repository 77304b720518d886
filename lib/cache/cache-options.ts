// The options of the template cache.
import { boolean, group, integer, type OptionsOf, oneOf, type ResolvedOf, size, value } from '../option-types.js';
import { BUDGET } from './disk/eviction.js';

const MEBIBYTE = 1024 ** 2;

export const CACHE = {
  /**
   * The directory that keeps templates over restarts and for other processes. `null` keeps them in this process only.
   *
   * @default the environment variable `LLAMA_HEADSTART_CACHE_DIR`, else '.cache/templates'
   */
  dir: value<string | null>(
    (dir) => dir === null || (typeof dir === 'string' && dir !== ''),
    'a path or null',
  ).optional(),
  /** Accept a directory that other users can write to. Those users could change replies. @default false */
  allowSharedDirectory: boolean().default(false),
  /** Budget of the templates kept in this process's memory, in bytes. @default 268435456 (256 MiB) */
  maxMemoryBytes: size().default(256 * MEBIBYTE),
  ...BUDGET,
  /** No template is saved that would leave less disk free, in bytes. @default the larger of 5 % and 2 GiB */
  minFreeDiskBytes: size().optional(),
  /** Templates of fewer tokens bypass the cache. @default 0 */
  minTokens: integer(0).default(0),
  /** Bypass the cache if prefills were measured to be no slower than restores. @default false */
  breakEven: boolean().default(false),
  /**
   * `nearest` starts a template that has no entry from the cached template with which it shares most tokens; `exact` never
   * does. @default 'nearest', with `reproducible` 'exact'
   */
  reuse: oneOf('exact', 'nearest').optional(),
  /**
   * Keep the states after the system prompt and after the tools of each server as entries of their own. On models whose state cannot
   * be trimmed, a changed tool then costs only the prefill of the tokens from that tool on. @default false
   */
  breakpoints: boolean().default(false),
  /** Sort tools that came from servers (MCP) by server and name, so that an unordered listing hits. @default true */
  stableTools: boolean().default(true),
  /** Templates that stay in the KV cache for sessions to fork. @default 4, with `kvLayout` 'split' 0 */
  maxResidentTemplates: integer(0, 255).optional(),
  /** KV cells that those templates may fill, one a token. @default half of kvCells */
  maxResidentCells: integer(0).optional(),
  /**
   * Budget for the states of sessions without KV cells (preempted, forked, restored), in bytes. A session without a state prefills
   * its conversation again. @default 268435456 (256 MiB)
   */
  maxSavedBytes: size().default(256 * MEBIBYTE),
};

/** The template cache: where it keeps states, how many, and when it uses them. */
export interface CacheOptions extends OptionsOf<typeof CACHE> {}
export type ResolvedCacheOptions = ResolvedOf<typeof CACHE>;

export const CACHE_OPTIONS = group(CACHE);
