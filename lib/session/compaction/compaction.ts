import { throwIfAborted } from '../../abort.js';
import type { CompactionReport } from '../../generate/stream-parts.js';
import {
  abortSignal,
  type Group,
  group,
  integer,
  number,
  type OptionsOf,
  type ResolvedOf,
  text,
} from '../../option-types.js';
import type { ChatMessage } from '../../prompt/messages.js';
import { pendingCalls } from '../conversation.js';
import { type Cut, cutsDuringTurn, cutTurns, turnsOf } from './cut.js';
import { type SummaryJob, summarize } from './summary.js';

const DEFAULT_PROMPT =
  'Summarise our conversation so far for yourself, so that you can go on from the summary alone: what was asked, what was ' +
  'decided, facts and names that matter, results of tools, and what is still open. Be brief. Write nothing but the summary.';

const COMPACTION = {
  /** Before a reply whose prompt takes more than this share of the context, 0.1 to 0.95. @default 0.8 */
  threshold: number(0.1, 0.95).default(0.8),
  /**
   * Newest turns that stay word for word. A turn is a user's message with all that follows it. `session.compact()` summarises
   * the oldest turn at least. By itself fewer stay where they would fill the context; of the turn that runs, its message and
   * newest tool calls with their results at least. @default 2
   */
  preserveRecent: integer(0, 1000).default(2),
  /** What the model is asked for after the older turns. @default a request for a brief summary */
  prompt: text().optional(),
  /** Most tokens of a summary, at most half of the context. @default an eighth of the context */
  maxSummaryTokens: integer(1).optional(),
};

/** How long conversations are shortened. */
export interface CompactionOptions extends OptionsOf<typeof COMPACTION> {}

export const COMPACTION_OPTIONS: Group<CompactionOptions, ResolvedOf<typeof COMPACTION>> = group(COMPACTION);

const COMPACT = {
  ...COMPACTION,
  /** Ends it with `ABORTED`. */
  signal: abortSignal().optional(),
};

/** How a conversation is shortened now. */
export interface CompactOptions extends OptionsOf<typeof COMPACT> {}

export const COMPACT_OPTIONS: Group<CompactOptions, unknown> = group(COMPACT);

export interface CompactionJob extends Omit<SummaryJob, 'request' | 'maxTokens'> {
  options: CompactionOptions;
}

export interface Compacted {
  messages: readonly ChatMessage[];
  report: CompactionReport;
}

/** Whether a prompt of so many tokens is to be shortened. */
export function needsCompaction(promptTokens: number, contextSize: number, options: CompactionOptions): boolean {
  return promptTokens > COMPACTION_OPTIONS.parse(options).threshold * contextSize;
}

/**
 * Lets the model summarise the older turns. The summary is a turn of its own, so that roles go on taking turns. The template
 * and what the sequence holds are used as they are.
 *
 * @returns undefined where there is nothing to summarise
 * @throws HeadstartError as {@link summarize}.
 */
export async function compact(job: CompactionJob, messages: readonly ChatMessage[]): Promise<Compacted | undefined> {
  const { preserveRecent } = COMPACTION_OPTIONS.parse(job.options);
  const least = pendingCalls(messages).length > 0 ? 1 : 0;
  const kept = Math.max(least, Math.min(preserveRecent, turnsOf(messages).length - 1));
  const cut = cutTurns(messages, kept);
  return cut && shorten(job, messages, cut);
}

/**
 * {@link compact} of a conversation whose newest turn goes on: as much stays as leaves the prompt below the threshold, its
 * newest step at least.
 */
export async function compactDuringTurn(
  job: CompactionJob,
  messages: readonly ChatMessage[],
): Promise<Compacted | undefined> {
  const { renderer, source, contextSize, options, signal } = job;
  let best: Cut | undefined;
  for (const cut of cutsDuringTurn(messages, COMPACTION_OPTIONS.parse(options).preserveRecent)) {
    best = cut;
    throwIfAborted(signal);
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
  const summary = await summarize({ ...job, request: requestOf(job), maxTokens: maxSummaryTokens(job) }, cut);
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

/** The other half is for what is summarised. */
function maxSummaryTokens({ options, contextSize }: CompactionJob): number {
  return Math.max(1, Math.min(options.maxSummaryTokens ?? contextSize >> 3, contextSize >> 1));
}
