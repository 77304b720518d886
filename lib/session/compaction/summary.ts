// Lets the model summarize the older part of a conversation.
import { throwIfAborted } from '../../abort.js';
import type { ConversationSequence } from '../../chat/conversation-sequence.js';
import { HeadstartError } from '../../errors.js';
import { Generation } from '../../generate/generation.js';
import { ReplyReader } from '../../generate/reply-reader.js';
import type { SampledReplies } from '../../generate/sampled-replies.js';
import { makeSampler } from '../../generate/sampling.js';
import type { Model } from '../../native/model.js';
import { beginningOf, type ChatMessage, callsOf, type ToolCall } from '../../prompt/messages.js';
import type { Prompt, Renderer, TemplateSource } from '../../prompt/renderer.js';
import type { SamplingOptions } from '../../sampling-options.js';
import type { Cut } from './cut.js';

/** The inputs of a summary. */
export interface SummaryJob {
  model: Model;
  renderer: Renderer;
  sampledReplies: SampledReplies;
  sequence: ConversationSequence;
  contextSize: number;
  source: TemplateSource;
  sampling: SamplingOptions;
  /** The user message that asks for the summary, after the messages to summarize. */
  request: ChatMessage;
  maxTokens: number;
  signal: AbortSignal;
}

/** A shortened message keeps at least this many characters. */
const MIN_CHARACTERS = 64;

/**
 * Generates the summary of the part that `cut` removes.
 *
 * @throws HeadstartError `REPLY_INVALID` if the model writes nothing, `CONTEXT_FULL` if even a shortened message does
 *   not fit into the context together with the request, and the errors of decoding.
 */
export async function summarize(job: SummaryJob, cut: Cut): Promise<string> {
  const { model, renderer, sequence, contextSize, sampling, maxTokens, signal } = job;
  const { tokens: prompt, format } = await summaryPrompt(job, cut);
  const sampler = await makeSampler(model, sampling, format, prompt);
  try {
    const reader = new ReplyReader(model, format, false);
    const generation = new Generation(model, sequence, {
      prompt,
      contextSize,
      maxTokens,
      stop: [],
      endings: format.additionalStops,
      sampler,
      logProbabilities: undefined,
      repetition: {},
      preserved: renderer.preservedTokens(format),
      signal,
      deadline: undefined,
    });
    for (let text = await generation.next(); text !== undefined; text = await generation.next()) {
      await reader.push(text);
    }
    await reader.finish(true);
    const summary = reader.text.trim() || reader.reasoning.trim(); // some models reason until `maxTokens` is reached
    if (summary === '') {
      throw new HeadstartError(
        'REPLY_INVALID',
        'Expected the model to summarize the conversation, but it wrote nothing. Try another `compaction.prompt`.',
      );
    }
    return summary;
  } finally {
    sampler?.close();
  }
}

/**
 * Renders the prompt of the summary. If the prompt does not fit into the context, leaves out the oldest turns, and then
 * the oldest steps. If even the newest turn or step alone does not fit, shortens its messages.
 */
async function summaryPrompt(job: SummaryJob, { turns, steps, opening }: Cut): Promise<Prompt> {
  const older = (from: number) =>
    [...turns.slice(from), opening, ...steps.slice(Math.max(0, from - turns.length))].flat();
  const newest = older(turns.length + steps.length - 1);
  const prompt =
    (await promptThatFits(job, older(0))) ??
    (await firstThatFits(1, turns.length + steps.length - 1, (from) => promptThatFits(job, older(from)))) ??
    (await cutPrompt(job, newest));
  if (prompt === undefined) {
    throw new HeadstartError(
      'CONTEXT_FULL',
      `A summary does not fit into a context of ${job.contextSize}: shorten \`compaction.prompt\`, lower ` +
        '`compaction.maxSummaryTokens`, raise `contextSize`, or start a new session',
    );
  }
  return prompt;
}

async function promptThatFits(job: SummaryJob, older: readonly ChatMessage[]): Promise<Prompt | undefined> {
  const { sampledReplies, sequence, source, request, contextSize, maxTokens, signal } = job;
  throwIfAborted(signal);
  const options = { toolChoice: 'none', reasoning: false } as const;
  const prompt = await sampledReplies.prompt(sequence, source, [...older, request], options);
  return prompt.tokens.length + maxTokens <= contextSize ? prompt : undefined;
}

/**
 * Finds the smallest number for which `attempt` has a result, by binary search, and returns this result. `attempt` must
 * also have a result for all larger numbers.
 */
async function firstThatFits<T>(
  low: number,
  high: number,
  attempt: (number: number) => Promise<T | undefined>,
): Promise<T | undefined> {
  let best: T | undefined;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const result = await attempt(middle);
    if (result === undefined) {
      low = middle + 1;
    } else {
      best = result;
      high = middle - 1;
    }
  }
  return best;
}

/**
 * Shortens long messages step by step until the prompt fits. Undefined if it does not fit with the shortest messages.
 */
async function cutPrompt(job: SummaryJob, messages: readonly ChatMessage[]): Promise<Prompt | undefined> {
  let limit = Math.max(2 * MIN_CHARACTERS, ...messages.map(longest)) >> 1;
  for (; limit >= MIN_CHARACTERS; limit >>= 1) {
    const prompt = await promptThatFits(
      job,
      messages.map((message) => shortened(message, limit)),
    );
    if (prompt !== undefined) {
      return prompt;
    }
  }
  return undefined;
}

/** The length of the message's longest part that can be shortened, in characters. */
function longest(message: ChatMessage): number {
  return Math.max(message.content.length, ...callsOf(message).map(({ input }) => JSON.stringify(input).length));
}

function shortened(message: ChatMessage, limit: number): ChatMessage {
  const { content } = message;
  const text = content.length <= limit ? content : `${beginningOf(content, limit)} [...]`;
  if (message.role !== 'assistant') {
    return { ...message, content: text };
  }
  const { toolCalls } = message;
  const short = (call: ToolCall) => (JSON.stringify(call.input).length <= limit ? call : { ...call, input: {} });
  return { role: 'assistant', content: text, ...(toolCalls !== undefined && { toolCalls: toolCalls.map(short) }) };
}
