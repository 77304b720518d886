// The options of a session that are saved to a file. `onToolCall` is not saved, because it is a function. `tenant` is
// not saved, because the program must decide to which tenant a restored session belongs.
import { TOOL_CALLS } from '../../chat/send-options.js';
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

/** Selects the session options to save, and converts them to JSON data. */
export function optionsToSave(options: SavedOptions): SavedOptions {
  const entries = Object.entries(options).filter(([name, value]) => NAMES.includes(name) && value !== undefined);
  const saved: SavedOptions = Object.fromEntries(entries);
  const { logitBias } = saved.sampling ?? {};
  if (logitBias === undefined) {
    return saved;
  }
  // JSON has neither maps nor infinity.
  const biases = logitBias instanceof Map ? [...logitBias] : Object.entries(logitBias);
  const bias = Object.fromEntries(
    biases.map(([token, value]) => [token, value === Number.NEGATIVE_INFINITY ? NEVER : value]),
  );
  return { ...saved, sampling: { ...saved.sampling, logitBias: bias } };
}

/** Converts the JSON data of {@link optionsToSave} back to options. */
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
