// The options of a session that a file can hold. Not `onToolCall`, which is code, and not `tenant`: whose a session is, the
// program says.
import { TOOL_CALLS } from '../options.js';
import type { SessionOptions } from '../session-options.js';

export type SavedOptions = Pick<
  SessionOptions,
  Exclude<keyof typeof TOOL_CALLS, 'onToolCall'> | 'sampling' | 'compaction' | 'templateCache'
>;

const NAMES = [
  ...Object.keys(TOOL_CALLS).filter((name) => name !== 'onToolCall'),
  'sampling',
  'compaction',
  'templateCache',
];

/** Those of a session's options. */
export function optionsToSave(options: SavedOptions): SavedOptions {
  const given = Object.entries(options).filter(([name, value]) => NAMES.includes(name) && value !== undefined);
  const saved: SavedOptions = Object.fromEntries(given);
  const { logitBias } = saved.sampling ?? {};
  if (logitBias === undefined) {
    return saved;
  }
  // JSON has neither maps nor infinity.
  const entries = logitBias instanceof Map ? [...logitBias] : Object.entries(logitBias);
  const bias = Object.fromEntries(
    entries.map(([token, value]) => [token, value === Number.NEGATIVE_INFINITY ? NEVER : value]),
  );
  return { ...saved, sampling: { ...saved.sampling, logitBias: bias } };
}

/** What {@link optionsToSave} made, once it is back from a file. */
export function savedOptions(saved: SavedOptions): SavedOptions {
  const { logitBias } = saved.sampling ?? {};
  if (logitBias === undefined) {
    return saved;
  }
  const entries = Object.entries(logitBias).map(([token, value]) => [
    token,
    (value as unknown) === NEVER ? Number.NEGATIVE_INFINITY : value,
  ]);
  return { ...saved, sampling: { ...saved.sampling, logitBias: Object.fromEntries(entries) } };
}

const NEVER = 'never' as unknown as number;
