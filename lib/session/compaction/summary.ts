// A summary of what a conversation leaves behind, written by the model itself.

import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { Generation } from '../../generate/generation.js';
import { ReplyReader } from '../../generate/reply-reader.js';
import { makeSampler } from '../../generate/sampling.js';
import type { Model } from '../../native/model.js';
import { beginningOf, type ChatMessage, type ToolCall } from '../../prompt/messages.js';
import type { Prompt, Renderer, TemplateSource } from '../../prompt/renderer.js';
import type { SamplingOptions } from '../../sampling-options.js';
import type { ConversationSequence } from '../conversation-sequence.js';
import type { Cut } from './cut.js';

export interface SummaryJob {
  model: Model;
  renderer: Renderer;
  sequence: ConversationSequence;
  contextSize: number;
  source: TemplateSource;
  sampling: SamplingOptions;
  /** What the model is asked for behind what it is to summarise. */
  request: ChatMessage;
  maxTokens: number;
  signal: AbortSignal;
}

/** Of a message that is cut, at least so many characters stay. */
const LEAST_CHARACTERS = 64;

/**
 * @throws HeadstartError `REPLY_INVALID` where the model writes nothing, `CONTEXT_FULL` where nothing fits beside the request,
 *   and what decoding throws.
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
    for (let piece = await generation.next(); piece !== undefined; piece = await generation.next()) {
      await reader.push(piece);
    }
    await reader.finish(true);
    const summary = reader.text.trim() || reader.reasoning.trim(); // some think for longer than they may write
    if (summary === '') {
      throw new HeadstartError(
        'REPLY_INVALID',
        'Expected the model to summarise the conversation, but it wrote nothing',
      );
    }
    return summary;
  } finally {
    sampler?.close();
  }
}

/**
 * What the model reads. Where not all of it fits, the oldest turns and then steps are left out; of the newest, where not even
 * that does, the ends of its messages.
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
      `There is no room for a summary in a context of ${job.contextSize}: shorten the \`prompt\` of \`compaction\` or its ` +
        '`maxSummaryTokens`, raise `contextSize`, or start a new session',
    );
  }
  return prompt;
}

async function promptThatFits(job: SummaryJob, older: readonly ChatMessage[]): Promise<Prompt | undefined> {
  const { renderer, source, request, contextSize, maxTokens, signal } = job;
  throwIfAborted(signal);
  const prompt = await renderer.prompt(source, [...older, request], { toolChoice: 'none', reasoning: false });
  return prompt.tokens.length + maxTokens <= contextSize ? prompt : undefined;
}

/** What `at` gives for the smallest number that it gives anything for: then it does for all larger ones, too. */
async function firstThatFits<T>(
  low: number,
  high: number,
  at: (number: number) => Promise<T | undefined>,
): Promise<T | undefined> {
  let best: T | undefined;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const found = await at(middle);
    if (found === undefined) {
      low = middle + 1;
    } else {
      best = found;
      high = middle - 1;
    }
  }
  return best;
}

async function cutPrompt(job: SummaryJob, messages: readonly ChatMessage[]): Promise<Prompt | undefined> {
  let limit = Math.max(2 * LEAST_CHARACTERS, ...messages.map(longest)) >> 1;
  for (; limit >= LEAST_CHARACTERS; limit >>= 1) {
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

/** Characters of its longest part that can be cut. */
function longest(message: ChatMessage): number {
  const calls = message.role === 'assistant' ? (message.toolCalls ?? []) : [];
  return Math.max(message.content.length, ...calls.map(({ input }) => JSON.stringify(input).length));
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
