import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import type { Check } from '../options.js';
import { checkOptions, integer, text } from '../options.js';
import type { ChatMessage } from '../template/messages.js';
import type { Renderer, TemplateSource } from '../template/render.js';
import { pendingCalls } from './conversation.js';
import { generate } from './generate.js';
import type { CompactionReport } from './parts.js';
import { ReplyReader } from './reply-reader.js';
import { makeSampler, type SamplingOptions } from './sampling.js';
import type { ConversationSequence } from './sequence.js';

/** How long conversations are shortened. */
export interface CompactionOptions {
  /** Before a turn whose prompt takes more than this share of the context, 0.1 to 0.95. @default 0.8 */
  threshold?: number;
  /** Newest turns that stay word for word. A turn is a user's message with all that follows it. @default 2 */
  preserveRecent?: number;
  /** What the model is asked for behind the older turns. */
  prompt?: string;
  /** Most tokens of a summary. @default an eighth of the context */
  maxSummaryTokens?: number;
}

const DEFAULT_PROMPT =
  'Summarise our conversation so far for yourself, so that you can go on from the summary alone: what was asked, what was ' +
  'decided, facts and names that matter, results of tools, and what is still open. Be brief. Write nothing but the summary.';

const COMPACTION_CHECKS: Record<keyof CompactionOptions, Check> = {
  threshold: (value) =>
    typeof value === 'number' && value >= 0.1 && value <= 0.95 ? undefined : 'a number from 0.1 to 0.95',
  preserveRecent: integer(0, 1000),
  prompt: text,
  maxSummaryTokens: integer(1),
};

/** @throws HeadstartError `CONFIG_INVALID`. */
export function checkCompaction(value: unknown): string | undefined {
  if (typeof value === 'boolean') {
    return undefined;
  }
  checkOptions(value, COMPACTION_CHECKS, '`compaction`');
  return undefined;
}

export interface CompactionJob {
  model: Model;
  renderer: Renderer;
  sequence: ConversationSequence;
  contextSize: number;
  source: TemplateSource;
  sampling: SamplingOptions;
  options: CompactionOptions;
  signal: AbortSignal;
}

export interface Compacted {
  messages: readonly ChatMessage[];
  report: CompactionReport;
}

/** Whether a prompt of so many tokens is to be shortened. */
export function needsCompaction(
  promptTokens: number,
  contextSize: number,
  { threshold = 0.8 }: CompactionOptions,
): boolean {
  return promptTokens > threshold * contextSize;
}

/**
 * Lets the model summarise the older turns. Turns stay whole, so that calls and their results stay together; the summary is
 * a turn of its own, so that roles go on taking turns. The template and what the sequence holds are used as they are.
 *
 * @returns undefined where there is nothing to summarise
 * @throws HeadstartError `REPLY_INVALID` where the model writes no summary, and what decoding throws.
 */
export async function compact(job: CompactionJob, messages: readonly ChatMessage[]): Promise<Compacted | undefined> {
  const { options, renderer, source } = job;
  const { prompt = DEFAULT_PROMPT, preserveRecent = 2 } = options;
  const turns = turnsOf(messages);
  const least = pendingCalls(messages).length > 0 ? 1 : 0;
  const kept = Math.max(least, Math.min(preserveRecent, turns.length - 1));
  const older = turns.slice(0, turns.length - kept);
  const recent = turns.slice(turns.length - kept).flat();
  if (older.length === 0) {
    return undefined;
  }
  const before = await renderer.prompt(source, messages);
  const summary = await summarise(job, older, prompt);
  const shortened: ChatMessage[] = [
    Object.freeze({ role: 'user', content: prompt }),
    Object.freeze({ role: 'assistant', content: summary }),
    ...recent,
  ];
  const after = await renderer.prompt(source, shortened);
  return {
    messages: shortened,
    report: {
      summary,
      replacedMessages: older.flat().length,
      tokensBefore: before.tokens.length,
      tokensAfter: after.tokens.length,
    },
  };
}

async function summarise(job: CompactionJob, turns: readonly ChatMessage[][], request: string): Promise<string> {
  const { model, renderer, sequence, contextSize, options, sampling, signal } = job;
  const maxTokens = options.maxSummaryTokens ?? Math.max(1, contextSize >> 3);
  const { tokens: prompt, format } = await summaryPrompt(job, turns, request, maxTokens);
  const sampler = await makeSampler(model, sampling, format, prompt);
  try {
    const reader = new ReplyReader(model, format, false);
    for await (const piece of generate(model, sequence, {
      prompt,
      contextSize,
      maxTokens,
      stop: format.additionalStops,
      sampler,
      logProbabilities: undefined,
      repetition: {},
      preserved: renderer.preservedTokens(format),
      signal,
      deadline: undefined,
      onToken: () => undefined,
    })) {
      await reader.push(piece);
    }
    await reader.finish(true);
    const summary = reader.text.trim();
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

/** The oldest turns are left out where not all of them fit. */
async function summaryPrompt(job: CompactionJob, turns: readonly ChatMessage[][], request: string, maxTokens: number) {
  const { renderer, source, contextSize } = job;
  for (let from = 0; ; from++) {
    const messages: ChatMessage[] = [...turns.slice(from).flat(), { role: 'user', content: request }];
    const prompt = await renderer.prompt(source, messages, { toolChoice: 'none', enableThinking: false });
    if (prompt.tokens.length + maxTokens <= contextSize || from >= turns.length) {
      return prompt;
    }
  }
}

/** Messages that came in one go, and all that follows up to the next of the user's. */
function turnsOf(messages: readonly ChatMessage[]): ChatMessage[][] {
  const turns: ChatMessage[][] = [];
  let previous: ChatMessage | undefined;
  for (const message of messages) {
    const begins = message.role === 'user' && previous?.role !== 'user';
    if (begins || turns.length === 0) {
      turns.push([]);
    }
    turns.at(-1)?.push(message);
    previous = message;
  }
  return turns;
}
