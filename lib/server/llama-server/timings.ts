import type { PrefillProgress } from '../../generate/prefill-progress.js';
import type { FinishedReply } from '../http/reply-events.js';

/** The `timings` of a reply, as llama-server writes them: numbers of tokens, ms, and tokens per second. */
export function timingsOf({ usage, cache }: Pick<FinishedReply, 'usage' | 'cache'>): object {
  const { inputTokens, cachedInputTokens, outputTokens, tokensPerSecond } = usage;
  const prefilledTokens = inputTokens - cachedInputTokens;
  const msPerToken = tokensPerSecond === 0 ? 0 : 1000 / tokensPerSecond;
  return {
    cache_n: cachedInputTokens,
    prompt_n: prefilledTokens,
    prompt_ms: cache.ms,
    prompt_per_token_ms: ratio(cache.ms, prefilledTokens),
    prompt_per_second: ratio(prefilledTokens * 1000, cache.ms),
    predicted_n: outputTokens,
    predicted_ms: outputTokens * msPerToken,
    predicted_per_token_ms: msPerToken,
    predicted_per_second: tokensPerSecond,
  };
}

/** llama-server's numbers of a prompt that is being read. */
export function promptProgress({ total, cached, processed, ms }: PrefillProgress): object {
  return { prompt_progress: { total, cache: cached, processed, time_ms: Math.round(ms) } };
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}
