import type { StartReport, StateSource } from './start-report.js';

/** The stored prefix that shares the most tokens with a prompt, whether or not the prompt can use it. */
export interface NearestPrefix {
  /** The tokens of the sequence, state or template. A view that is valid until the sequence changes. */
  tokens: Int32Array;
  /** How many tokens the prompt shares with the stored prefix. */
  shared: number;
}

/** Why a prompt reuses fewer tokens than it shares with the nearest stored prefix. */
export type ReuseLimit =
  /** The memory cannot be trimmed, and no checkpoint lies at or before the first differing token. */
  | 'no-checkpoint'
  /** A copy takes longer than the prefill of the tokens that it would save, or the source is busy. */
  | 'not-worth'
  /** The template was not cached. A prefill of a template starts only from another template. */
  | 'template'
  /** The KV cache has too few free cells for a copy. */
  | 'cells'
  /** The copy failed, for example because its source was evicted in the meantime. */
  | 'copy-failed'
  /** `reproducible`: a sequence continues only from its own tokens or from the template. */
  | 'reproducible';

/** What a prompt reuses. */
export interface LoadedPrefix {
  /** The source of the reused tokens. */
  source: StateSource;
  /** Number of tokens that need no prefill. */
  cachedTokens: number;
  /** How many tokens the prompt shares with the nearest stored prefix. */
  nearestTokens: number;
  /** Whether the nearest stored prefix has more tokens than the shared ones. Undefined if the prefix is in a file. */
  nearestContinues: boolean | undefined;
  limit?: ReuseLimit | undefined;
  /** Why the template is not in the cache: the reason in its start report. */
  templateReason?: string | undefined;
}

/** The fields of a {@link LoadedPrefix} that do not depend on the nearest stored prefix. */
export type LoadedSource = Pick<LoadedPrefix, 'source' | 'cachedTokens' | 'limit' | 'templateReason'>;

/** What a prompt that begins with a template reuses. */
export function templatePrefix({ source, cache, cachedTokens, reason }: StartReport): LoadedSource {
  return cache === 'hit'
    ? { source, cachedTokens }
    : { source, cachedTokens, limit: 'template', templateReason: reason };
}

/** @param nearest undefined if nothing is stored */
export function loadedPrefix(loaded: LoadedSource, nearest: NearestPrefix | undefined): LoadedPrefix {
  const shared = nearest?.shared ?? 0;
  const nearestTokens = Math.max(shared, loaded.cachedTokens);
  const isInFile = shared < loaded.cachedTokens;
  const nearestContinues = isInFile ? undefined : shared < (nearest?.tokens.length ?? 0);
  return { ...loaded, nearestTokens, nearestContinues };
}

/**
 * Why a prompt reuses no more tokens, in one sentence without any text of the stored tokens.
 *
 * @returns undefined if only the last token of the prompt is decoded: this token is always decoded
 */
export function whyNotMore(prefix: LoadedPrefix, promptTokens: number): string | undefined {
  const { cachedTokens, nearestTokens, nearestContinues, limit, templateReason } = prefix;
  if (cachedTokens >= promptTokens - 1) {
    return undefined;
  }
  const clauses: string[] = [];
  if (nearestTokens === 0) {
    clauses.push('no stored prefix shares a token with the prompt');
  } else if (nearestTokens < promptTokens) {
    clauses.push(`the nearest stored prefix ${endOf(nearestContinues)} token ${nearestTokens} of the prompt`);
  }
  if (limit !== undefined && cachedTokens < Math.min(nearestTokens, promptTokens - 1)) {
    clauses.push(`${nearestTokens - cachedTokens} shared tokens were not reused: ${LIMITS[limit]}`);
  }
  if (templateReason !== undefined) {
    clauses.push(`the template was not cached: ${templateReason}`);
  }
  return clauses.length === 0 ? undefined : clauses.join('; ');
}

function endOf(continues: boolean | undefined): string {
  return continues === undefined ? 'ends or differs at' : continues ? 'differs at' : 'ends in front of';
}

const LIMITS: Readonly<Record<ReuseLimit, string>> = {
  'no-checkpoint': 'the memory of this model cannot be trimmed, and no checkpoint is nearer',
  'not-worth': 'a copy of them takes longer than their prefill, or their sequence is in use',
  template: "a template that is not cached starts only from another template, and only with `reuse: 'nearest'`",
  cells: 'the KV cache has too few free cells for a copy',
  'copy-failed': 'they could not be copied',
  reproducible: 'with `reproducible`, a prompt continues only from its own conversation or from its template',
};
