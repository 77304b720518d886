import { HeadstartError } from '../errors.js';
import type { Model } from '../native/model.js';
import { type Check, checkOptions, integer, text } from '../options.js';
import type { ChatMessage } from '../template/messages.js';
import type { Renderer, TemplateSource } from '../template/render.js';
import { type Cut, cutsOfRunning, cutTurns, turnsOf } from './compaction-cut.js';
import { pendingCalls } from './conversation.js';
import { Generation } from './generate.js';
import type { CompactionReport } from './parts.js';
import { ReplyReader } from './reply-reader.js';
import { makeSampler, type SamplingOptions } from './sampling.js';
import type { ConversationSequence } from './sequence.js';

/** How long conversations are shortened. */
export interface CompactionOptions {
  /** Before a reply whose prompt takes more than this share of the context, 0.1 to 0.95. @default 0.8 */
  threshold?: number;
  /**
   * Newest turns that stay word for word. A turn is a user's message with all that follows it. By itself (not by
   * `session.compact()`) fewer stay where they would fill the context; of the turn that runs, its message and newest tool calls
   * with their results at least. @default 2
   */
  preserveRecent?: number;
  /** What the model is asked for behind the older turns. */
  prompt?: string;
  /** Most tokens of a summary. @default an eighth of the context */
  maxSummaryTokens?: number;
}

const DEFAULT_PRESERVED = 2;
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
export function checkCompaction(value: unknown, more: Record<string, Check> = {}): void {
  checkOptions(value, { ...COMPACTION_CHECKS, ...more }, '`compaction`');
}

/** For `checkOptions`: `true` stands for the defaults. */
export const checkCompactionSwitch: Check = (value) => {
  if (typeof value !== 'boolean') {
    checkCompaction(value);
  }
  return undefined;
};

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
 * Lets the model summarise the older turns. The summary is a turn of its own, so that roles go on taking turns. The template
 * and what the sequence holds are used as they are.
 *
 * @returns undefined where there is nothing to summarise
 * @throws HeadstartError `REPLY_INVALID` where the model writes no summary, and what decoding throws.
 */
export async function compact(job: CompactionJob, messages: readonly ChatMessage[]): Promise<Compacted | undefined> {
  const { preserveRecent = DEFAULT_PRESERVED } = job.options;
  const least = pendingCalls(messages).length > 0 ? 1 : 0;
  const kept = Math.max(least, Math.min(preserveRecent, turnsOf(messages).length - 1));
  const cut = cutTurns(messages, kept);
  return cut && shorten(job, messages, cut);
}

/**
 * {@link compact} of a conversation whose newest turn goes on: as much stays as leaves the prompt below the threshold, its
 * newest step at least.
 */
export async function compactRunning(
  job: CompactionJob,
  messages: readonly ChatMessage[],
): Promise<Compacted | undefined> {
  const { renderer, source, contextSize, options } = job;
  let best: Cut | undefined;
  for (const cut of cutsOfRunning(messages, options.preserveRecent ?? DEFAULT_PRESERVED)) {
    best = cut;
    const { tokens } = await renderer.prompt(source, withSummary(job, '.', cut));
    if (!needsCompaction(tokens.length + maxSummaryTokens(job), contextSize, options)) {
      break;
    }
  }
  return best && shorten(job, messages, best);
}

async function shorten(job: CompactionJob, messages: readonly ChatMessage[], cut: Cut): Promise<Compacted> {
  const { renderer, source } = job;
  const before = await renderer.prompt(source, messages);
  const summary = await summarise(job, cut);
  const shortened = withSummary(job, summary, cut);
  const after = await renderer.prompt(source, shortened);
  return {
    messages: shortened,
    report: {
      summary,
      replacedMessages: [...cut.turns, ...cut.steps].flat().length,
      tokensBefore: before.tokens.length,
      tokensAfter: after.tokens.length,
    },
  };
}

function withSummary(job: CompactionJob, summary: string, { kept }: Cut): ChatMessage[] {
  return [requestOf(job), Object.freeze({ role: 'assistant', content: summary }), ...kept];
}

/** What the model is asked for. */
function requestOf({ options }: CompactionJob): ChatMessage {
  return Object.freeze({ role: 'user', content: options.prompt ?? DEFAULT_PROMPT });
}

function maxSummaryTokens({ options, contextSize }: CompactionJob): number {
  return options.maxSummaryTokens ?? Math.max(1, contextSize >> 3);
}

async function summarise(job: CompactionJob, cut: Cut): Promise<string> {
  const { model, renderer, sequence, contextSize, sampling, signal } = job;
  const maxTokens = maxSummaryTokens(job);
  const { tokens: prompt, format } = await summaryPrompt(job, cut, maxTokens);
  const sampler = await makeSampler(model, sampling, format, prompt);
  try {
    const reader = new ReplyReader(model, format, false);
    const generation = new Generation(model, sequence, {
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
    });
    for (let piece = await generation.next(); piece !== undefined; piece = await generation.next()) {
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

/** The oldest turns, and then steps, are left out where not all of them fit. */
async function summaryPrompt(job: CompactionJob, cut: Cut, maxTokens: number) {
  const { renderer, source, contextSize } = job;
  const { turns, steps, opening } = cut;
  for (let from = 0; ; from++) {
    const older = [...turns.slice(from), opening, ...steps.slice(Math.max(0, from - turns.length))].flat();
    const prompt = await renderer.prompt(source, [...older, requestOf(job)], {
      toolChoice: 'none',
      enableThinking: false,
    });
    if (prompt.tokens.length + maxTokens <= contextSize || from >= turns.length + steps.length) {
      return prompt;
    }
  }
}
