import { randomUUID } from 'node:crypto';
import { eitherSignal, throwIfAborted } from '../abort.js';
import { type StartReport, startReport } from '../cache/start-report.js';
import { publish } from '../diagnostics/events.js';
import type { SwappedSequence } from '../engine/swap-store.js';
import { HeadstartError } from '../errors.js';
import { type PreparedFormat, prepareFormat } from '../generate/response-format.js';
import type { CompactionReport, FinishPart, Reply, StreamPart, TurnPart } from '../generate/stream-parts.js';
import { checkedOptions, parseOptions } from '../parse-options.js';
import type { ChatMessage, ToolCall } from '../prompt/messages.js';
import type { SamplingOptions } from '../sampling-options.js';
import { isPrefix } from '../tokens.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import type { ToolSession } from '../tools/tool.js';
import { AbandonedStream } from './abandoned-stream.js';
import { COMPACT_OPTIONS, type CompactionOptions, type CompactOptions, compact } from './compaction/compaction.js';
import { pendingCalls, type TurnInput } from './conversation.js';
import { ConversationSequence } from './conversation-sequence.js';
import type { SendOptions } from './options.js';
import { requirePath, requireReplaceable, saveSession } from './persistence/saved-session.js';
import { ReaderWatch } from './reader-watch.js';
import { collectReply } from './reply.js';
import { SAVE_OPTIONS, type SaveOptions } from './session-options.js';
import type { SessionServices, SessionSetup } from './session-setup.js';
import { sharedPrefix } from './shared-prefix.js';
import { Turn } from './turn.js';
import { asAborted } from './turn-errors.js';
import { TurnEvents } from './turn-events.js';
import { TurnLock } from './turn-lock.js';
import { type AskedTurn, readRequest } from './turn-request.js';

/**
 * A conversation. It holds a sequence while one is to be had; while idle it may lose it to another session, and comes back
 * from its template and its own messages.
 */
export class Session implements ToolSession {
  /** Unique; the same again after `restoreSession`, another one after `fork`. */
  readonly id: string;
  readonly #services: SessionServices;
  readonly #setup: SessionSetup;
  readonly #sequence: ConversationSequence;
  readonly #readerWatch: ReaderWatch;
  readonly #closing = new AbortController();
  #messages: readonly ChatMessage[];
  #report!: StartReport;
  /** The step of a turn that runs now. A turn whose consumer does not ask for more runs none, and holds up nobody. */
  #step: Promise<unknown> | undefined;
  readonly #turnLock: TurnLock;
  /** Of the turn that runs, until the conversation has it. */
  #rollBack: (() => Promise<void>) | undefined;
  #mismatched = false;
  #inTurn = false;

  private constructor(services: SessionServices, setup: SessionSetup) {
    this.id = setup.id ?? randomUUID();
    this.#services = services;
    this.#setup = setup;
    this.#messages = Object.freeze([...setup.messages]);
    this.#sequence = new ConversationSequence({ ...services, ...setup });
    this.#turnLock = new TurnLock(services.lock, this.#sequence);
    this.#readerWatch = new ReaderWatch(this.#sequence, this.#turnLock);
  }

  /** @internal What it goes on from, where a file had it. */
  adopt(past: SwappedSequence): void {
    this.#sequence.adopt(past);
  }

  /** @internal */
  static async start(services: SessionServices, setup: SessionSetup, begin: number): Promise<Session> {
    const session = new Session(services, setup);
    try {
      session.#report = await session.#sequence.start(setup.signal);
      session.#report.ms = performance.now() - begin;
      setup.onOpened(session, session.#sequence);
      publish('session', { event: 'start', sessionId: session.id, report: session.#report });
      return session;
    } catch (error) {
      session.#sequence.release();
      throw error;
    } finally {
      session.#sequence.setBusy(false);
    }
  }

  /** How this session's start went. */
  get report(): Readonly<StartReport> {
    return this.#report;
  }

  /** The conversation so far: turns that finished. The system prompt is not among them. */
  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  /** Tool calls of the newest reply that wait for the caller's results. */
  get pendingToolCalls(): readonly ToolCall[] {
    return pendingCalls(this.#messages);
  }

  /** @internal Whether its sequence is in use right now. */
  get busy(): boolean {
    return this.#sequence.busy;
  }

  /** From the call of `close()` on. */
  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /**
   * Sends a message and resolves with the whole reply, after all rounds of tool calls.
   *
   * @throws HeadstartError as {@link stream}.
   */
  async send<S extends Schema>(message: TurnInput, options: SendOptions<S> = {}): Promise<Reply<SchemaValue<S>>> {
    return (await collectReply(this.#parts(message, options, true))) as Reply<SchemaValue<S>>;
  }

  /**
   * Sends a message and yields the reply as it is generated; the last part is a `finish`, and the turn is over then. A turn that
   * does not finish (aborted, failed, or left by `break`) leaves no trace in `messages`, and the session can be used again. One
   * that fails yields a `finish` with `aborted` or `error` and then throws.
   *
   * @param message the user's text; or messages, the last of them a user's or the results of tool calls
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `SESSION_BUSY`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`,
   *   `QUEUE_FULL`, `REPLY_INVALID` (with `responseFormat`), and what rendering, sampling and decoding throw.
   */
  stream(message: TurnInput, options: SendOptions = {}): AsyncGenerator<StreamPart, void, undefined> {
    return this.#parts(message, options, false) as AsyncGenerator<StreamPart, void, undefined>; // none is `again`
  }

  /** @param asksAgain for a reply that its `responseFormat` does not allow */
  async *#parts(
    message: TurnInput,
    options: SendOptions,
    asksAgain: boolean,
  ): AsyncGenerator<TurnPart, void, undefined> {
    this.#requireOpen();
    const asked = { message, options, closing: this.#closing.signal };
    const request = readRequest(this, this.#setup, this.#services.contextSize, asked);
    this.#requireIdle('send');
    this.#inTurn = true;
    const { id: sessionId } = this;
    const { turnId } = request.toolRun;
    const events = new TurnEvents({ turnId, sessionId, model: this.#services.model.path });
    const told = new AbandonedStream(events.end);
    const life = new AbandonedStream(() => void this.#endTurn());
    let turn: Turn | undefined;
    let last: FinishPart | undefined;
    let failure: { error: unknown } | undefined;
    try {
      await this.#turnLock.enter(eitherSignal(request.signal, request.generation.deadline));
      this.#rollBack = this.#sequence.rollbackPoint();
      events.begin();
      turn = await this.#stepping(this.#beginTurn({ ...request, asksAgain }, options));
      for (let part = await this.#stepping(turn.next()); part !== undefined; part = await this.#stepping(turn.next())) {
        if (part.type === 'finish') {
          this.#messages = Object.freeze([...turn.conversation]);
          this.#rollBack = undefined; // the conversation has it
          events.finished(part);
          last = part;
          break;
        }
        this.#readerWatch.offer();
        yield part;
        if (this.#readerWatch.taken()) {
          await this.#turnLock.enter(request.signal);
        }
      }
    } catch (error) {
      events.failed(error);
      const isAborted = !this.closed && HeadstartError.isInstance(error, 'ABORTED');
      last = { type: 'finish', finishReason: isAborted ? 'aborted' : 'error', usage: request.usage.total() };
      if (this.closed) {
        failure = { error: new HeadstartError('CLOSED', 'The session was closed during its turn', { cause: error }) };
      } else {
        this.#sequence.afterFailure();
        const limit = { deadline: request.generation.deadline, timeoutMs: options.timeoutMs };
        failure = { error: asAborted(error, 'The turn', limit, request.signal) };
      }
    } finally {
      told.end();
      life.end();
      await turn?.end();
      events.end();
      await this.#endTurn();
    }
    // The turn is over: who reads no further holds up nobody, and may send the next message from here.
    if (last !== undefined) {
      yield last;
    }
    if (failure !== undefined) {
      throw failure.error;
    }
  }

  /** Before the session closes, this ends. */
  #stepping<T>(step: Promise<T>): Promise<T> {
    this.#step = step;
    return step;
  }

  async #endTurn(): Promise<void> {
    this.#readerWatch.end();
    if (this.#rollBack !== undefined && this.#turnLock.isOutside) {
      this.#sequence.release(); // others may change what it was computed with at any moment: it comes back anew
    }
    await this.#rollBack?.();
    this.#rollBack = undefined;
    this.#turnLock.leave();
    this.#inTurn = false;
    this.#sequence.setBusy(false);
  }

  /**
   * A session of its own that goes on from here: it shares the template and, in a unified KV cache, every cell so far.
   *
   * @throws HeadstartError `SESSION_BUSY`, `CLOSED`.
   */
  async fork(): Promise<Session> {
    return this.#exclusively('fork', undefined, async (signal) => {
      const begin = performance.now();
      const { id: _, signal: __, ...setup } = this.#setup;
      const child = new Session(this.#services, { ...setup, messages: this.#messages });
      try {
        const start = await child.#sequence.forkFrom(this.#sequence);
        throwIfAborted(signal); // an agent that closes has closed all sessions that it knew of
        const cachedTokens = start.cache === 'bypass' ? 0 : this.#report.templateTokens;
        const ms = performance.now() - begin;
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
   * Writes the conversation to a file, whole or not at all: id, system prompt, tool definitions, messages, and the session's
   * own options (sampling, tools, compaction). `execute` functions, `onToolCall` and `tenant` are the program's to give again.
   * See `AgentServer.restoreSession`.
   *
   * @param path a new path, or a regular file, which is replaced; a directory, link, device or named pipe there is `WRITE_FAILED`
   * @param options.state keep the KV state too, in a file beside it (`<path>.kv`, as large as the state): the restored session
   *   then goes on without reading its conversation again. Where others were given the session's cells and nothing was kept of
   *   them, it is read again for that. With `reproducible` only what there is is kept, and on a sliding-window model nothing: a
   *   state put back is not the same to the bit there. @default false
   * @throws HeadstartError `WRITE_FAILED`, `DISK_FULL`, `SESSION_BUSY`, `CLOSED`, `ABORTED`; with `state` what decoding throws.
   */
  async save(path: string, options: SaveOptions = {}): Promise<void> {
    const { state: withState, signal: given } = parseOptions(SAVE_OPTIONS, options, {
      where: 'the save options',
      code: 'INVALID_ARGUMENT',
    });
    requirePath(path);
    await this.#exclusively('save', given, async (signal) => {
      throwIfAborted(signal);
      await requireReplaceable(path);
      const { source, options: own } = this.#setup;
      const { systemPrompt, tools = [] } = source;
      const session = { id: this.id, systemPrompt, tools, messages: this.#messages, options: own };
      const { cache, engine } = this.#services;
      const past = withState || engine.reproducible ? await this.#captureCheckpoint(withState, signal) : undefined;
      try {
        const { tenant } = this.#setup;
        await saveSession(path, session, past && { ...past, key: cache.keyOf(past.tokens, { tenant }), withState });
      } finally {
        past?.state?.close();
      }
    });
  }

  /** What it goes on from; where a state is wanted, one that serves its next turn, though its conversation be decoded again. */
  async #captureCheckpoint(withState: boolean, signal: AbortSignal): Promise<SwappedSequence | undefined> {
    const { engine, renderer, contextSize } = this.#services;
    if (!withState || engine.reproducible) {
      return this.#sequence.captureCheckpoint();
    }
    return this.#decoding('The save', async () => {
      const shared = await sharedPrefix(renderer, this.#setup.source, this.#messages);
      return this.#sequence.captureCheckpointFor(shared.subarray(0, contextSize - 1), signal);
    });
  }

  /** Runs what decodes and is no turn: where it fails, what it has read goes again. */
  async #decoding<T>(what: string, work: () => Promise<T>): Promise<T> {
    const takeBack = this.#sequence.rollbackPoint();
    try {
      return await work();
    } catch (error) {
      this.#sequence.afterFailure();
      await takeBack?.();
      throw asAborted(error, what);
    }
  }

  /**
   * Replaces older turns by a summary that the model writes; `compaction` has it done by itself. The template stays.
   *
   * @returns undefined where there is nothing to summarise
   * @throws HeadstartError `CONFIG_INVALID`, `SESSION_BUSY`, `CLOSED`, `ABORTED`, `REPLY_INVALID` (the model wrote no summary).
   */
  async compact(options: CompactOptions = {}): Promise<CompactionReport | undefined> {
    const { signal, ...compaction } = checkedOptions(COMPACT_OPTIONS, options, { where: '`compaction`' });
    return this.#exclusively('compact', signal, (either) =>
      this.#decoding('The compaction', () =>
        this.#compact({ ...this.#setup.compaction, ...compaction }, this.#setup.sampling, either),
      ),
    );
  }

  /** Ends a turn that runs and gives the sequence back; the turn's stream throws `CLOSED`. Idempotent. */
  async close(): Promise<void> {
    if (!this.closed) {
      this.#closing.abort(new HeadstartError('CLOSED', 'The session was closed'));
      this.#setup.onClosed(this);
      publish('session', { event: 'close', sessionId: this.id });
    }
    await this.#step?.catch(() => undefined); // no later one gets past the signal
    this.#turnLock.leave();
    this.#sequence.close();
  }

  /** As {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #beginTurn(request: AskedTurn & { asksAgain: boolean }, options: SendOptions): Promise<Turn> {
    throwIfAborted(request.signal);
    const format: PreparedFormat | undefined = await prepareFormat(options.responseFormat);
    const { model, renderer, messageEnds, contextSize } = this.#services;
    return new Turn(
      {
        model,
        renderer,
        messageEnds,
        contextSize,
        source: this.#setup.source,
        sequence: this.#sequence,
        passage: this.#turnLock,
        compaction: this.#setup.compaction,
        onPrompt: (prompt) => this.#checkTemplate(prompt),
      },
      { ...request, format },
    );
  }

  async #compact(
    options: CompactionOptions,
    sampling: SamplingOptions,
    signal: AbortSignal,
  ): Promise<CompactionReport | undefined> {
    const job = { ...this.#services, sequence: this.#sequence, source: this.#setup.source, sampling, options, signal };
    const compacted = await compact(job, this.#messages);
    if (compacted !== undefined) {
      this.#messages = Object.freeze([...compacted.messages]);
    }
    return compacted?.report;
  }

  /** Runs what no turn may run beside. */
  async #exclusively<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    this.#requireOpen();
    this.#requireIdle(what);
    const either = eitherSignal(this.#closing.signal, signal);
    const inside = async () => {
      await this.#turnLock.enter(either);
      return work(either);
    };
    this.#inTurn = true;
    try {
      return await this.#stepping(inside());
    } catch (error) {
      throw this.closed ? new HeadstartError('CLOSED', 'The session was closed meanwhile', { cause: error }) : error;
    } finally {
      this.#turnLock.leave();
      this.#inTurn = false;
      this.#sequence.setBusy(false);
    }
  }

  #requireIdle(what: string): void {
    if (this.#inTurn) {
      throw new HeadstartError(
        'SESSION_BUSY',
        `Expected an idle session to ${what}, but it is generating: wait for its turn to end`,
      );
    }
  }

  /** What was assumed of the chat template may be wrong: the first prompt shows it. */
  #checkTemplate(prompt: Int32Array): void {
    const { source, template, onMismatch } = this.#setup;
    if (this.#messages.length === 0 && !this.#mismatched && !isPrefix(template, prompt)) {
      this.#mismatched = true;
      this.#report.reason = 'the first prompt did not begin with the template';
      this.#services.cache.countPrefixMismatch();
      onMismatch(source);
    }
  }

  #requireOpen(): void {
    if (this.closed) {
      throw new HeadstartError('CLOSED', 'Expected an open session, but it was closed');
    }
  }
}
