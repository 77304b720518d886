import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { StreamEnd } from '../generate/reply-stream.js';
import type { FinishReason } from '../generate/stream-parts.js';
import { UsageCounter } from '../generate/usage-counter.js';
import type { Group } from '../option-types.js';
import type { Usage } from '../usage.js';
import type { ConversationSequence } from './conversation-sequence.js';
import { type GenerationOptions, type ResolvedGeneration, resolveGeneration } from './send-options.js';
import { asAborted, withUsage } from './turn-errors.js';
import type { TurnEvents } from './turn-events.js';
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
  readonly sequence: ConversationSequence;
  readonly lock: TurnLock;
  readonly events?: TurnEvents;
  /** Generates the reply. Call it while `lock` is held. */
  run(): Promise<StreamEnd<Part, Result>>;
}

/** What starts a reply: a session, a request or a completion. */
export interface ReplyOwner<Prepared> {
  /** The reply, for the messages of errors. */
  what: 'turn' | 'request' | 'completion';
  /** Who is closed if `closing` aborts, for the messages of errors. */
  owner: 'session' | 'agent';
  /** Called before the reply waits for its lock. May refuse the reply. */
  onPrepared?(reply: Prepared): Promise<void>;
  /** Called when the reply holds its lock, before anything is decoded. */
  onLocked?(): void;
  /** Called when the program has read the whole reply, and can no longer leave its stream. */
  onRead?(reply: Prepared): void;
  /** Releases the lock and the sequence. Called after success and after a failure, even one of `prepare`. */
  end(reply: Prepared | undefined): Promise<void> | void;
}

/**
 * Runs a reply, from its preparation until the program has read it.
 *
 * @throws HeadstartError `CLOSED` if the owner was closed, `ABORTED`, and the errors of the reply, all with `usage`.
 */
export async function runReply<
  Part,
  Result extends { finishReason: FinishReason; usage: Usage },
  Prepared extends PreparedReply<Part, Result>,
>(
  owner: ReplyOwner<Prepared>,
  limits: ReplyLimits,
  queue: PartQueue<Part>,
  prepare: () => Prepared | Promise<Prepared>,
): Promise<StreamEnd<Part, Result>> {
  const { signal, generation } = limits;
  const stopDropping = queue.closeOnAbort(signal);
  let reply: Prepared | undefined;
  try {
    const preparing = prepare();
    // Without an `await`, the turn of a session takes its lock before any later call of the program can take it.
    reply = preparing instanceof Promise ? await preparing : preparing;
    reply.events?.begin();
    if (owner.onPrepared !== undefined) {
      await owner.onPrepared(reply);
    }
    await reply.lock.enter(eitherSignal(signal, generation.deadline));
    owner.onLocked?.();
    const end = await reply.run();
    await reply.lock.untilRead(queue, signal);
    owner.onRead?.(reply);
    reply.events?.end(end.result);
    return end;
  } catch (error) {
    reply?.sequence.afterFailure();
    const failure = failureOf(error, owner, limits);
    reply?.events?.end({ error: failure });
    throw failure;
  } finally {
    stopDropping();
    await owner.end(reply);
  }
}

function failureOf(
  error: unknown,
  { what, owner }: { what: string; owner: string },
  { closing, signal, generation, usage }: ReplyLimits,
): unknown {
  const failure = closing.aborted
    ? new HeadstartError('CLOSED', `The ${owner} was closed during this ${what}`, { cause: error })
    : asAborted(error, `The ${what}`, generation, signal);
  return withUsage(failure, usage.total());
}
