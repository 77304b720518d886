// The line below a reply. It shows the source of the prompt, the speed, and how full the context is.
import type { StateSource } from '../../cache/start-report.js';
import type { FinishPart } from '../../generate/stream-parts.js';
import { countText, durationText } from '../words.js';
import type { Conversation } from './conversation.js';

const SOURCES: Record<StateSource, string> = {
  resident: 'from the KV cache',
  memory: 'from memory',
  disk: 'from disk',
  prefill: 'computed',
};

/** @param contextSize the maximum number of tokens of the conversation */
export async function statusLine(
  { usage, cache }: Pick<FinishPart, 'usage' | 'cache'>,
  conversation: Conversation,
  contextSize: number,
): Promise<string> {
  const { source, cachedTokens, prefilledTokens } = cache;
  const { steps, inputTokens, outputTokens, firstTokenMs, tokensPerSecond } = usage;
  const prompt = countText(cachedTokens + prefilledTokens);
  const contextUsed = steps === 1 ? inputTokens + outputTokens : await conversation.countTokens();
  return [
    `prompt ${SOURCES[startSource(source, conversation)]}: ${countText(cachedTokens)} of ${prompt} tokens`,
    `first word ${durationText(firstTokenMs)}`,
    ...(tokensPerSecond > 0 ? [`${tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)} tokens/s`] : []),
    `context ${countText(contextUsed)} of ${countText(contextSize)}`,
  ].join(' · ');
}

/** The first turn finds its template in the KV cache, because the session has loaded it there at its start. */
function startSource(source: StateSource, { report, messages }: Conversation): StateSource {
  const isFirstTurn = messages.filter(({ role }) => role === 'user').length === 1;
  return isFirstTurn && source === 'resident' ? report.source : source;
}
