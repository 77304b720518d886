import { combinedSignal, eitherSignal } from '../abort.js';
import { publish } from '../diagnostics/events.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { StreamEnd } from '../generate/reply-stream.js';
import type { FinishReason } from '../generate/stream-parts.js';
import { UsageCounter } from '../generate/usage-counter.js';
import type { Group } from '../option-types.js';
import type { Usage } from '../usage.js';
import type { ConversationSequence } from './conversation-sequence.js';
import { type GenerationOptions, type ResolvedGeneration, resolveGeneration } from './send-options.js';
import { failureOf, withUsage } from './turn-errors.js';
import type { TurnLock } from './turn-lock.js';

/** What may end a reply early, and what the reply has cost. */
export interface ReplyLimits {
  generation: ResolvedGeneration;
  /** Aborts the reply: the program aborts it, the reader leaves its stream, or `closing` aborts. */
  signal: AbortSignal;
  /** Aborts when the session or the agent is closed. */
  closing: AbortSignal;
  usage: UsageCounter;
}

/**
 * Checks the options that limit a reply.
 *
 * @param leaveSignal aborts when the reader leaves the stream
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function readLimits(
  options: GenerationOptions,
  schema: Group<GenerationOptions, unknown>,
  closing: AbortSignal,
  leaveSignal?: AbortSignal,
): ReplyLimits {
  const generation = resolveGeneration(options, schema);
  return {
    generation,
    signal: combinedSignal(closing, leaveSignal, options.signal),
    closing,
    usage: new UsageCounter(),
  };
}

/** A reply that can be generated. */
export interface PreparedReply<Part, Result> {
  readonly lock: TurnLock;
  /** Identifies a turn in published events. Completions publish no events. */
  readonly identity?: { turnId: string; sessionId: string; model: string };
  /** Generates the reply. Call it while `lock` is held. */
  run(): Promise<StreamEnd<Part, Result>>;
}

/** What starts a reply: a session, a request or a completion. */
export interface ReplyOwner<Prepared> {
  /** The reply, for the messages of errors. */
  what: 'turn' | 'request' | 'completion';
  /** What was closed if `closing` aborts, for the messages of errors. */
  owner: 'session' | 'agent';
  /** Called before the reply waits for its lock. May refuse the reply. */
  onPrepared?(reply: Prepared): Promise<unknown>;
  /** Called when the program has read the whole reply, and can no longer leave its stream. */
  onRead?(reply: Prepared): void;
  /** Called at the end, also after a failure: see {@link TurnLock.run}. */
  end?(sequence: ConversationSequence): void;
}

/**
 * Runs a reply, from its preparation until the program has read it.
 *
 * @throws HeadstartError `CLOSED` if the owner was closed, `ABORTED`, and the errors of the reply, all with `usage`.
 */
export async function runReply<Part, Result extends Outcome, Prepared extends PreparedReply<Part, Result>>(
  owner: ReplyOwner<Prepared>,
  { signal, closing, generation, usage }: ReplyLimits,
  queue: PartQueue<Part>,
  prepare: () => Prepared | Promise<Prepared>,
): Promise<StreamEnd<Part, Result>> {
  const stopDropping = queue.closeOnAbort(signal);
  let publishEnd: ((outcome: Outcome | { error: unknown }) => void) | undefined;
  try {
    const preparing = prepare();
    // Without an `await`, the turn of a session takes its lock before any later call of the program can take it.
    const reply = preparing instanceof Promise ? await preparing : preparing;
    publishEnd = publishStart(reply);
    if (owner.onPrepared !== undefined) {
      await owner.onPrepared(reply);
    }
    const generate = async () => {
      const ended = await reply.run();
      await reply.lock.untilRead(queue, signal);
      owner.onRead?.(reply);
      return ended;
    };
    const ended = await reply.lock.run(eitherSignal(signal, generation.deadline), generate, owner.end);
    publishEnd?.(ended.result);
    return ended;
  } catch (error) {
    const { deadline, timeoutMs } = generation;
    const failure = withUsage(failureOf(error, owner, { closing, signal, deadline, timeoutMs }), usage.total());
    publishEnd?.({ error: failure });
    throw failure;
  } finally {
    stopDropping();
  }
}

interface Outcome {
  finishReason: FinishReason;
  usage: Usage;
}

/** Publishes the start of a turn. @returns a function that publishes its end */
function publishStart({ identity }: Pick<PreparedReply<unknown, unknown>, 'identity'>) {
  if (identity === undefined) {
    return undefined;
  }
  const startedAt = performance.now();
  publish('turn', { event: 'start', ...identity });
  return (outcome: Outcome | { error: unknown }) => {
    const { turnId, sessionId } = identity;
    const how = 'error' in outcome ? outcome : { finishReason: outcome.finishReason, usage: outcome.usage };
    publish('turn', { event: 'end', turnId, sessionId, ms: performance.now() - startedAt, ...how });
  };
}
