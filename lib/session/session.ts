import { randomUUID } from 'node:crypto';
import { eitherSignal, throwIfAborted } from '../abort.js';
import { type StartReport, startReport } from '../cache/start-report.js';
import type { ChatServices } from '../chat/chat-host.js';
import { continuation, pendingCalls, readTurn, type TurnInput } from '../chat/conversation.js';
import { ConversationSequence } from '../chat/conversation-sequence.js';
import { type ReplyOwner, readLimits, runReply } from '../chat/reply-run.js';
import { SEND_OPTIONS, type SendOptions } from '../chat/send-options.js';
import { Turn, type TurnServices } from '../chat/turn.js';
import { asAborted, failureOf } from '../chat/turn-errors.js';
import { TurnLock } from '../chat/turn-lock.js';
import { type TurnRequest, turnRequest } from '../chat/turn-request.js';
import { publish } from '../diagnostics/events.js';
import type { ContentsCopy } from '../engine/sequence-states.js';
import type { PartQueue } from '../generate/part-queue.js';
import { type ReplyStream, type StreamEnd, StreamedTask } from '../generate/reply-stream.js';
import type { CompactionReport, Reply, StreamPart } from '../generate/stream-parts.js';
import { checkedOptions, parseOptions } from '../parse-options.js';
import type { ChatMessage, ToolCall } from '../prompt/messages.js';
import { isPrefix } from '../tokens.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import type { ToolSession } from '../tools/tool.js';
import { AutomaticCompaction } from './compaction/automatic-compaction.js';
import { COMPACT_OPTIONS, type CompactOptions, compact } from './compaction/compaction.js';
import { requirePath, requireReplaceable, type SavedSession, saveSession } from './persistence/saved-session.js';
import { SessionActivity } from './session-activity.js';
import { SAVE_OPTIONS, type SaveOptions } from './session-options.js';
import type { SessionSetup } from './session-setup.js';
import { sharedPrefix } from './shared-prefix.js';

const LOWER_RESULTS = 'If tool results fill the context, lower `maxToolResultLength`.';
/** What a program can do if the prompt of a session is too long. */
const REMEDY = `Raise \`contextSize\`, set \`compaction\` or call \`session.compact()\`, or start a new session. ${LOWER_RESULTS}`;
const REMEDY_AFTER_COMPACTION =
  '`compaction` has already replaced all of the conversation except the newest part. Raise `contextSize`, or start a ' +
  `new session. ${LOWER_RESULTS}`;

/**
 * A conversation. Each turn runs in a sequence of the KV cache. An idle session may lose its sequence to another
 * session. The next turn of the idle session then continues from a saved state, or decodes the template and the
 * messages again.
 */
export class Session implements ToolSession {
  /** The unique id of the session. A restored session keeps its id. A fork has a new id. */
  readonly id: string;
  readonly #services: ChatServices;
  readonly #setup: SessionSetup;
  readonly #sequence: ConversationSequence;
  readonly #turnLock: TurnLock;
  readonly #activity = new SessionActivity();
  #messages: readonly ChatMessage[];
  #report!: StartReport;
  #hasMismatch = false;

  private constructor(services: ChatServices, setup: SessionSetup) {
    this.id = setup.id ?? randomUUID();
    this.#services = services;
    this.#setup = setup;
    this.#messages = Object.freeze([...setup.messages]);
    this.#sequence = new ConversationSequence({ ...services, ...setup });
    this.#turnLock = new TurnLock(services.lock, this.#sequence);
  }

  /** @internal Continues from the checkpoint of a file. */
  adopt(checkpoint: ContentsCopy): void {
    this.#sequence.adopt(checkpoint);
  }

  /**
   * @internal
   *
   * @param startedAt the time of the caller's request for the session, as `performance.now()`
   */
  static async start(
    services: ChatServices,
    setup: SessionSetup,
    signal: AbortSignal,
    startedAt: number,
  ): Promise<Session> {
    const session = new Session(services, setup);
    const sequence = session.#sequence;
    try {
      session.#report = await session.#turnLock.run(signal, () => sequence.start(signal));
    } catch (error) {
      sequence.close();
      throw asAborted(error, 'Opening the session');
    }
    session.#report.ms = performance.now() - startedAt;
    setup.onOpened(session, sequence);
    publish('session', { event: 'start', sessionId: session.id, report: session.#report });
    return session;
  }

  /** Describes the start of this session. */
  get report(): Readonly<StartReport> {
    return this.#report;
  }

  /** The messages of all finished turns, without the system prompt. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /** The tool calls of the newest reply that have no result yet. Send a `tool` message for each of these calls. */
  get pendingToolCalls(): readonly ToolCall[] {
    return pendingCalls(this.#messages);
  }

  /** @internal Whether the session's sequence is in use, so that it cannot be evicted. */
  get busy(): boolean {
    return this.#sequence.busy;
  }

  /** Whether `close()` was called. */
  get closed(): boolean {
    return this.#activity.closing.aborted;
  }

  /**
   * Sends a message and resolves with the complete reply, after all rounds of tool calls.
   *
   * @throws HeadstartError as {@link stream}.
   */
  async send<S extends Schema>(message: TurnInput, options: SendOptions<S> = {}): Promise<Reply<SchemaValue<S>>> {
    return this.stream(message, options).result;
  }

  /**
   * Sends a message and returns the reply as a stream: iterate over its parts, or await its `result`. The last part is
   * a `finish`. When the reader receives it, {@link messages} includes the messages of the turn.
   *
   * If the turn is aborted or fails, or if `break` leaves the stream, the turn adds nothing to `messages`, and the
   * session remains usable. In all three cases `result` rejects, and the error's `usage` is the cost of the turn. If
   * the turn is aborted or fails, the iteration throws too.
   *
   * The turn starts when the stream is iterated or its `result` is awaited.
   *
   * @param message the user's text, or messages that end with a user message or with the results of tool calls
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `SESSION_BUSY`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`,
   *   `QUEUE_FULL`, `REPLY_INVALID` (with `responseFormat`), and the errors of rendering, sampling and decoding.
   */
  stream<S extends Schema>(
    message: TurnInput,
    options: SendOptions<S> = {},
  ): ReplyStream<StreamPart, Reply<SchemaValue<S>>> {
    return new StreamedTask((queue, leaveSignal) => this.#send(message, options, queue, leaveSignal)) as ReplyStream<
      StreamPart,
      Reply<SchemaValue<S>>
    >;
  }

  /** Checks the arguments, makes the session busy, and runs the turn. */
  async #send(
    message: TurnInput,
    options: SendOptions,
    queue: PartQueue<StreamPart>,
    leaveSignal: AbortSignal,
  ): Promise<StreamEnd<StreamPart, Reply>> {
    this.#activity.requireOpen();
    const limits = readLimits(options, SEND_OPTIONS, this.#activity.closing, leaveSignal);
    const { source, tools, sampling, options: toolOptions } = this.#setup;
    const messages = [...this.#messages, ...readTurn(message, this.#messages)];
    const { contextSize } = this.#services;
    const setting = { messages, source, tools, session: this, sampling, toolOptions, contextSize };
    const request = turnRequest(options, limits, setting);
    const owner: ReplyOwner<Turn> = {
      what: 'turn',
      owner: 'session',
      onRead: (turn) => {
        this.#messages = Object.freeze([...turn.conversation]);
      },
    };
    const makeTurn = () => new Turn(this.#turnServices(request, queue), request);
    return this.#begin('turn', () => runReply(owner, limits, queue, makeTurn));
  }

  #turnServices({ sampling, toolRun }: TurnRequest, queue: PartQueue<StreamPart>): TurnServices {
    const { source, compaction } = this.#setup;
    const services = { ...this.#services, source, sequence: this.#sequence };
    const job = compaction && { ...services, sampling, options: compaction, signal: toolRun.signal };
    return {
      ...services,
      lock: this.#turnLock,
      queue,
      compaction: job && new AutomaticCompaction(job),
      remedy: job === undefined ? REMEDY : REMEDY_AFTER_COMPACTION,
      onPrompt: (prompt) => this.#checkTemplate(prompt),
    };
  }

  #begin<T>(what: string, work: () => Promise<T>): Promise<T> {
    return this.#activity.run(what, () => {
      this.#sequence.beginActivity();
      return work();
    });
  }

  /**
   * Runs an activity other than a turn.
   *
   * @param work receives a signal that aborts when `signal` aborts or the session is closed
   */
  #run<T>(
    what: 'fork' | 'save' | 'compaction',
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { closing } = this.#activity;
    const either = eitherSignal(closing, signal);
    return this.#begin(what, async () => {
      try {
        return await this.#turnLock.run(either, () => work(either));
      } catch (error) {
        throw failureOf(error, { what, owner: 'session' }, { closing, signal: either });
      }
    });
  }

  /**
   * Opens a new session that continues from this conversation. In a unified KV cache, the two sessions share all cells
   * up to the fork. Later turns of one session do not affect the other.
   *
   * @throws HeadstartError `SESSION_BUSY`, `CLOSED`.
   */
  async fork(): Promise<Session> {
    return this.#run('fork', undefined, async (signal) => {
      const startedAt = performance.now();
      const { id: _, ...setup } = this.#setup;
      const child = new Session(this.#services, { ...setup, messages: this.#messages });
      try {
        const start = await child.#sequence.forkFrom(this.#sequence, signal);
        throwIfAborted(signal); // an agent that is being closed does not know the fork yet, and would not close it
        const cachedTokens = start.cache === 'bypass' ? 0 : this.#report.templateTokens;
        const ms = performance.now() - startedAt;
        child.#report = startReport({ ...this.#report, ...start, cachedTokens, ms, reason: 'forked' });
        setup.onOpened(child, child.#sequence);
        publish('session', { event: 'start', sessionId: child.id, report: child.#report });
        return child;
      } catch (error) {
        child.#sequence.close();
        throw error;
      } finally {
        child.#sequence.setBusy(false);
      }
    });
  }

  /**
   * Saves the conversation to a file, atomically. The file contains the id, the system prompt, the tool definitions,
   * the messages and the session's options (sampling, tools, compaction). Functions and the tenant are not saved. Pass
   * `onToolCall` and `tenant` again when you restore the session: see `AgentServer.restoreSession`.
   *
   * With `options.state`, the file `<path>.kv` receives the KV state, and the restored session continues without
   * decoding its conversation again. If the session has lost its cells and no state was kept, `save` decodes the
   * conversation again. In `reproducible` mode `save` never decodes, and saves only a state that exists. With a
   * sliding-window model, this mode saves no state, because a restored state would not be the same to the bit.
   *
   * @param path a new path, or the path of a regular file, which is replaced. A directory, link, device or named pipe
   *   is `WRITE_FAILED`.
   * @param options.state whether to save the KV state. @default false
   * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`, `SESSION_BUSY`, `CLOSED`, `ABORTED`; with `state` also the
   *   errors of decoding.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const { state: withState, signal: callerSignal } = parseOptions(SAVE_OPTIONS, options, {
      where: 'the save options',
      code: 'INVALID_ARGUMENT',
    });
    requirePath(path);
    await this.#run('save', callerSignal, async (signal) => {
      throwIfAborted(signal);
      await requireReplaceable(path);
      const { source, tenant, options: sessionOptions } = this.#setup;
      const { systemPrompt, tools = [] } = source;
      const replies = await this.#sampledReplies();
      const session = { id: this.id, systemPrompt, tools, messages: this.#messages, options: sessionOptions, replies };
      const { cache, engine } = this.#services;
      const checkpoint =
        withState || engine.reproducible ? await this.#captureCheckpoint(withState, signal) : undefined;
      try {
        const keyed = checkpoint && { ...checkpoint, key: cache.keyring(tenant).keyOf(checkpoint.tokens), withState };
        await saveSession(path, session, keyed);
      } finally {
        checkpoint?.end();
      }
    });
  }

  /** The replies of this conversation as they were sampled. */
  async #sampledReplies(): Promise<SavedSession['replies']> {
    const { sampledReplies } = this.#services;
    const group = this.#sequence.replyScope?.group;
    if (group === undefined || this.#messages.length === 0) {
      return undefined;
    }
    const messages = [...this.#messages, ...continuation(this.#messages, '.')];
    const { tokens } = await sampledReplies.tokens(this.#sequence, this.#setup.source, messages);
    return { group, records: sampledReplies.recordsFor(group, tokens) };
  }

  /**
   * Copies the contents from which the next turn continues. With `withState`, decodes the conversation if there is no
   * useful state.
   */
  async #captureCheckpoint(withState: boolean, signal: AbortSignal): Promise<ContentsCopy | undefined> {
    const { engine, sampledReplies, contextSize } = this.#services;
    if (!withState || engine.reproducible) {
      return this.#sequence.captureCheckpoint(signal);
    }
    const shared = await sharedPrefix(this.#messages, (messages) =>
      sampledReplies.tokens(this.#sequence, this.#setup.source, messages),
    );
    return this.#sequence.captureCheckpointFor(shared.subarray(0, contextSize - 1), signal);
  }

  /**
   * Replaces older turns by a summary that the model writes. The system prompt and the tools stay. With the option
   * `compaction`, turns do this automatically.
   *
   * @returns undefined if there is nothing to summarize
   * @throws HeadstartError `CONFIG_INVALID`, `SESSION_BUSY`, `CLOSED`, `ABORTED`, `REPLY_INVALID` (the model wrote no
   *   summary).
   */
  async compact(options: CompactOptions = {}): Promise<CompactionReport | undefined> {
    const { signal: callerSignal, ...own } = checkedOptions(COMPACT_OPTIONS, options, { where: '`compaction`' });
    return this.#run('compaction', callerSignal, async (signal) => {
      const { source, sampling, compaction } = this.#setup;
      const job = { ...this.#services, sequence: this.#sequence, source, sampling, signal };
      const compacted = await compact({ ...job, options: { ...compaction, ...own } }, this.#messages);
      if (compacted !== undefined) {
        this.#messages = Object.freeze([...compacted.messages]);
      }
      return compacted?.report;
    });
  }

  /** Aborts a turn in progress and frees the sequence. The stream of the turn throws `CLOSED`. Idempotent. */
  async close(): Promise<void> {
    await this.stop();
    this.#sequence.close();
  }

  /** @internal As {@link close}, but keeps the sequence. */
  async stop(): Promise<void> {
    if (!this.closed) {
      this.#activity.abort();
      this.#setup.onClosed(this);
      publish('session', { event: 'close', sessionId: this.id });
    }
    await this.#activity.settled();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Checks the assumed template boundary with the first prompt. If the boundary is wrong, the next session with this
   * template searches for the boundary again.
   */
  #checkTemplate(prompt: Int32Array): void {
    const { source, template, onMismatch } = this.#setup;
    if (this.#messages.length === 0 && !this.#hasMismatch && !isPrefix(template, prompt)) {
      this.#hasMismatch = true;
      this.#report.reason = 'the first prompt did not begin with the template';
      this.#services.cache.countPrefixMismatch();
      onMismatch(source);
    }
  }
}
