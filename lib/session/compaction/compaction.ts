import { throwIfAborted } from '../../abort.js';
import { pendingCalls } from '../../chat/conversation.js';
import type { Compacted } from '../../chat/turn.js';
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
import { referencesIn } from '../../prompt/deferred-tools.js';
import type { ChatMessage, UserMessage } from '../../prompt/messages.js';
import { type Cut, cutsDuringTurn, cutTurns, turnsOf } from './cut.js';
import { type SummaryJob, summarize } from './summary.js';

const DEFAULT_PROMPT =
  'Summarize our conversation so far for yourself, so that you can go on from the summary alone: what was asked, ' +
  'what was decided, facts and names that matter, results of tools, and what is still open. Be brief. Write nothing ' +
  'but the summary.';

const COMPACTION = {
  /** Compaction starts when a prompt fills more than this share of the context, 0.1 to 0.95. @default 0.8 */
  threshold: number(0.1, 0.95).default(0.8),
  /**
   * Number of newest turns to keep unchanged. A turn is a user message and everything up to the next user message.
   * `session.compact()` always summarizes at least the oldest turn. Automatic compaction keeps fewer turns if this
   * number of turns would fill the context, but always keeps the current turn's user message and newest tool calls with
   * their results.
   * @default 2
   */
  preserveRecent: integer(0, 1000).default(2),
  /**
   * The user message that asks the model for a summary. This message follows the turns to summarize.
   * @default a request for a brief summary
   */
  prompt: text().optional(),
  /** Maximum number of tokens of a summary, at most half of the context. @default an eighth of the context */
  maxSummaryTokens: integer(1).optional(),
};

/** Options for the compaction of long conversations. */
export interface CompactionOptions extends OptionsOf<typeof COMPACTION> {}

export const COMPACTION_OPTIONS: Group<CompactionOptions, ResolvedOf<typeof COMPACTION>> = group(COMPACTION);

const COMPACT = {
  ...COMPACTION,
  /** Aborts the compaction, with `ABORTED`. */
  signal: abortSignal().optional(),
};

/** Options of `session.compact()`. */
export interface CompactOptions extends OptionsOf<typeof COMPACT> {}

export const COMPACT_OPTIONS: Group<CompactOptions, unknown> = group(COMPACT);

/** The inputs of a compaction. */
export interface CompactionJob extends Omit<SummaryJob, 'request' | 'maxTokens'> {
  options: CompactionOptions;
}

/** Whether a prompt of `promptTokens` tokens exceeds the threshold. */
export function needsCompaction(promptTokens: number, contextSize: number, options: CompactionOptions): boolean {
  return promptTokens > COMPACTION_OPTIONS.parse(options).threshold * contextSize;
}

/**
 * Lets the model summarize the older turns. The summary becomes one turn of the conversation, with the request as the
 * user message and the summary as the reply. So user and assistant messages still alternate. The prompt for the summary
 * is cheap, because it begins with the template and the conversation, which the sequence already holds.
 *
 * @returns undefined if there is nothing to summarize
 * @throws HeadstartError as {@link summarize}.
 */
export async function compact(job: CompactionJob, messages: readonly ChatMessage[]): Promise<Compacted | undefined> {
  const { preserveRecent } = COMPACTION_OPTIONS.parse(job.options);
  const minKept = pendingCalls(messages).length > 0 ? 1 : 0;
  const kept = Math.max(minKept, Math.min(preserveRecent, turnsOf(messages).length - 1));
  const cut = cutTurns(messages, kept);
  return cut && shorten(job, messages, cut);
}

/**
 * Does the same as {@link compact} during a turn. Keeps as many messages as fit below the threshold, and always the
 * newest step of the current turn.
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

/** The tools that the summarized messages loaded stay loaded: the request refers to them. */
function withSummary(job: CompactionJob, summary: string, { turns, steps, kept }: Cut): ChatMessage[] {
  const toolReferences = [...new Set([...turns, ...steps].flat().flatMap(referencesIn))];
  const request = { ...requestOf(job), ...(toolReferences.length > 0 && { toolReferences }) };
  return [Object.freeze(request), Object.freeze({ role: 'assistant', content: summary }), ...kept];
}

/** The user message that asks for the summary. */
function requestOf({ options }: CompactionJob): UserMessage {
  return Object.freeze({ role: 'user', content: options.prompt ?? DEFAULT_PROMPT });
}

/** At most half of the context, because the text to summarize needs the other half. */
function maxSummaryTokens({ options, contextSize }: CompactionJob): number {
  return Math.max(1, Math.min(options.maxSummaryTokens ?? contextSize >> 3, contextSize >> 1));
}
