import { type LoadedPrefix, whyNotMore } from './loaded-prefix.js';
import type { StateSource } from './start-report.js';

/** A place in a prompt. */
export interface PromptPlace {
  /** Position of a token in the prompt, counted from 0. */
  index: number;
  /**
   * The part of the prompt that has this token: `system` for the system prompt, `opening` for the markup at the end of
   * the prompt, with which the reply begins. Absent if the part is unknown, for example because the chat template
   * rewrites its text.
   */
  part?: 'system' | 'tool' | 'message' | 'opening';
  /** The index of the message that has this token, in the messages of the request or session. */
  message?: number;
  /** The name of the tool whose definition has this token. */
  tool?: string;
  /** The text of a few tokens, beginning with this token. U+FFFD replaces incomplete characters. */
  text: string;
}

/**
 * What a prompt reused, and why not more. If a turn has several steps, the report describes the first prompt. The
 * prompts of later steps continue this prompt.
 *
 * The prompt is compared with the *nearest stored prefix*: the sequence, state in memory, or template of the same
 * tenant and configuration that shares the most tokens with the prompt. The report contains no text of that prefix.
 */
export interface CacheReport {
  /**
   * The source of the reused tokens: `resident` if they were in the KV cache, `memory`, `disk`, or `prefill` if no
   * token was reused.
   */
  source: StateSource;
  /** Prompt tokens that were not prefilled. */
  cachedTokens: number;
  /** Prompt tokens that were prefilled. The last token of a prompt is always among them. */
  prefilledTokens: number;
  /** Milliseconds until the prompt was decoded, including the wait for a sequence. */
  ms: number;
  /** Why no more tokens were reused, as a sentence. Absent if only the prompt's last token was prefilled. */
  reason?: string;
  /**
   * The first token of the prompt that the nearest stored prefix does not have. Absent if that prefix has all tokens of
   * the prompt.
   */
  difference?: PromptPlace;
}

/**
 * @param place finds the place of a token of the prompt
 */
export function cacheReport(
  loaded: LoadedPrefix,
  promptTokens: number,
  place: (index: number) => PromptPlace,
): Omit<CacheReport, 'ms'> {
  const { source, cachedTokens, nearestTokens } = loaded;
  const reason = whyNotMore(loaded, promptTokens);
  return {
    source,
    cachedTokens,
    prefilledTokens: promptTokens - cachedTokens,
    ...(reason !== undefined && { reason }),
    ...(nearestTokens < promptTokens && { difference: place(nearestTokens) }),
  };
}
