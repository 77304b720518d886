import { orAborted, throwIfAborted } from '../abort.js';
import { type CacheReport, cacheReport } from '../cache/cache-report.js';
import { HeadstartError } from '../errors.js';
import type { CheckpointPlace, LoadedPrompt } from '../generate/generation.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { PrefillProgress } from '../generate/prefill-progress.js';
import type { StreamEnd } from '../generate/reply-stream.js';
import { type PreparedFormat, prepareFormat } from '../generate/response-format.js';
import type { ConversationPrompt, SampledReplies } from '../generate/sampled-replies.js';
import type { CompactionReport, FinishPart, Reply, StreamPart, ToolResult } from '../generate/stream-parts.js';
import type { FinishedCall } from '../generate/tool-input.js';
import type { Model } from '../native/model.js';
import type { MessageEnds } from '../prompt/message-end.js';
import type { AssistantMessage, ChatMessage, ToolCall } from '../prompt/messages.js';
import type { Prompt, Renderer, ReplyOptions, TemplateSource } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import { runCalls, type ToolOutcome } from '../tools/run-calls.js';
import type { ConversationSequence } from './conversation-sequence.js';
import { expectNextPrompt } from './next-prompt.js';
import { placeInPrompt } from './prompt-places.js';
import type { PreparedReply } from './reply-run.js';
import { type FinishedReply, StepReply } from './step-reply.js';
import { contextFull } from './turn-errors.js';
import type { TurnLock } from './turn-lock.js';
import { TurnMessages } from './turn-messages.js';
import { promptOptions, type TurnRequest } from './turn-request.js';

/** A shortened conversation. */
export interface Compacted {
  messages: readonly ChatMessage[];
  report: CompactionReport;
}

/** Shortens the conversation of a turn if its prompt fills too much of the context. */
export interface TurnCompaction {
  /**
   * @param promptTokens the length of the conversation's prompt
   * @returns undefined if the conversation stays as it is
   * @throws HeadstartError the errors of a summary, if the prompt does not fit into the context without it.
   */
  shorten(conversation: readonly ChatMessage[], promptTokens: number): Promise<Compacted | undefined>;
}

/** The places in the prompt of a turn at which states are worth keeping for other requests. */
export interface TurnHints {
  /** The numbers of tokens in front of the places, ascending. */
  placesIn(prompt: Int32Array, options: ReplyOptions): Promise<readonly number[]>;
  /** Called after the first reply: the template is in the cache now. */
  pin(): void;
}

export interface TurnServices {
  model: Model;
  renderer: Renderer;
  messageEnds: MessageEnds;
  sampledReplies: SampledReplies;
  sequence: ConversationSequence;
  lock: TurnLock;
  queue: PartQueue<StreamPart>;
  contextSize: number;
  source: TemplateSource;
  /** Shortens long conversations. If undefined, the turn never shortens the conversation. */
  compaction?: TurnCompaction | undefined;
  /** What a program can do if a prompt does not fit into the context, for the message of the error. */
  remedy: string;
  hints?: TurnHints | undefined;
  /** Whether the next request of the conversation may leave out the calls and results of this turn. @default false */
  mayOmitToolRounds?: boolean | undefined;
  /** Called while the model reads the first prompt. */
  onPrefill?: ((progress: PrefillProgress) => void) | undefined;
  /** Called with the first prompt of the turn, before anything is decoded. */
  onPrompt?: (prompt: Int32Array) => void;
}

/**
 * A user's message, the model's reply, and all rounds of tool calls between them. A step is one prompt and its reply.
 */
export class Turn implements PreparedReply<StreamPart, Reply> {
  readonly lock: TurnLock;
  readonly identity: { turnId: string; sessionId: string; model: string };
  readonly #services: TurnServices;
  readonly #request: TurnRequest;
  readonly #messages: TurnMessages;
  #format: PreparedFormat | undefined;
  /** The prompt of the first step. Until that step it may be out of date: see {@link Turn.#fittingPrompt}. */
  #firstPrompt: ConversationPrompt | undefined;
  /** What the first prompt reused. */
  #cacheReport!: CacheReport;

  constructor(services: TurnServices, request: TurnRequest) {
    const { session, turnId } = request.toolRun;
    this.lock = services.lock;
    this.identity = { turnId, sessionId: session.id, model: services.model.path };
    this.#services = services;
    this.#request = request;
    this.#messages = new TurnMessages(request.messages);
  }

  /** The conversation as it is now. */
  get conversation(): readonly ChatMessage[] {
    return this.#messages.conversation;
  }

  /**
   * Renders the first prompt, and refuses it if it is too long and no compaction can shorten it. Needs no lock. If it
   * was not called, {@link run} calls it.
   *
   * @param onPrompt gets the number of tokens. May refuse the prompt.
   * @throws HeadstartError `INVALID_ARGUMENT` or `SCHEMA_INVALID` (`responseFormat`), `CONTEXT_FULL`, and the errors of
   *   rendering.
   */
  async prepare(onPrompt?: (tokens: number) => void): Promise<void> {
    const { sequence, compaction } = this.#services;
    this.#format = await prepareFormat(this.#request.responseFormat);
    throwIfAborted(this.#request.signal);
    this.#firstPrompt = await sequence.announce(async () => {
      const prompt = await this.#prompt(0);
      if (compaction === undefined) {
        this.#requireSpace(prompt);
      }
      onPrompt?.(prompt.tokens.length);
      return prompt;
    });
  }

  /** Generates replies and runs tools until the model has replied without a call, or the caller has to answer calls. */
  async run(): Promise<StreamEnd<StreamPart, Reply>> {
    const { maxSteps, usage } = this.#request;
    if (this.#firstPrompt === undefined) {
      await this.prepare();
    }
    for (let index = 0; ; index++) {
      const reply = await this.#step(index);
      const checked = await this.#check(reply, index);
      if (checked === 'retry') {
        usage.nextStep();
        continue;
      }
      const calls = reply.calls.map(({ call }) => call);
      this.#messages.addReply(reply.message, calls);
      await this.#emit(callParts(reply.calls));
      const { finishReason, detail, stopString } = reply.generated;
      const isWaiting = await this.#answer(calls);
      if (!isWaiting && (calls.length === 0 || finishReason !== 'stop')) {
        const cause = { ...(detail !== undefined && { detail }), ...(stopString !== undefined && { stopString }) };
        return this.#end(reply, { finishReason, ...cause, ...checked });
      }
      if (isWaiting || index + 1 >= maxSteps) {
        return this.#end(reply, { finishReason: 'tool-calls', ...(!isWaiting && { detail: 'max-steps' }) });
      }
      usage.nextStep();
    }
  }

  /** Adds parts to the stream. If the queue is full, the turn pauses until the reader has taken half of the parts. */
  #emit(parts: readonly StreamPart[]): Promise<void> | undefined {
    const { queue, lock } = this.#services;
    const { signal } = this.#request;
    queue.push(...parts);
    return lock.whileFull(queue, signal);
  }

  async #step(index: number): Promise<FinishedReply> {
    throwIfAborted(this.#request.signal);
    const prompt = await this.#fittingPrompt(index);
    this.#requireSpace(prompt);
    if (index === 0) {
      this.#firstPrompt = prompt;
      this.#services.onPrompt?.(prompt.tokens);
    }
    const reply = await this.#openReply(prompt, index);
    try {
      for (let parts = await reply.next(); parts !== undefined; parts = await reply.next()) {
        const pause = this.#emit(parts);
        if (pause !== undefined) {
          await pause; // an unconditional `await` would delay each token
        }
      }
      const finished = await reply.finish();
      if (index === 0) {
        this.#cacheReport = this.#reportCache(prompt, finished.generated.loaded);
        this.#services.hints?.pin();
      }
      await this.#emit(finished.parts);
      return finished;
    } finally {
      reply.close();
    }
  }

  /** @throws HeadstartError `CONTEXT_FULL`, or the error of the reply that is to be replaced. */
  #requireSpace({ tokens }: Prompt): void {
    const { contextSize, remedy } = this.#services;
    if (tokens.length >= contextSize) {
      throw this.#messages.rejected?.error ?? contextFull('The prompt', tokens.length, contextSize, remedy);
    }
  }

  /** Called after the reply, because the search for the place of the difference must not delay the first token. */
  #reportCache(prompt: Prompt, loaded: LoadedPrompt): CacheReport {
    const { model, source } = this.#services;
    const messages = this.conversation;
    const contents = { prompt, source, messages, indices: this.#request.indices };
    const place = (index: number) => placeInPrompt(model, contents, index);
    return { ...cacheReport(loaded, prompt.tokens.length, place), ms: loaded.ms };
  }

  async #openReply(prompt: ConversationPrompt, index: number): Promise<StepReply> {
    const { generation, parallelToolCalls, signal, usage } = this.#request;
    return StepReply.open(this.#services, {
      prompt,
      checkpoint: await this.#checkpointIn(prompt, index),
      generation,
      sampling: this.#samplingOf(index),
      isStructured: this.#isStructured(index),
      maxCalls: parallelToolCalls ? Number.POSITIVE_INFINITY : 1,
      ids: this.#messages.callIds(),
      signal,
      usage,
      onPrefill: index === 0 ? this.#services.onPrefill : undefined,
    });
  }

  /**
   * The place for a checkpoint: the end of the newest message. The text after this place opens the reply. Later prompts
   * often leave out this text, or tokenize it differently.
   */
  async #checkpointIn(prompt: Prompt, index: number): Promise<CheckpointPlace | undefined> {
    const { sequence, messageEnds, hints } = this.#services;
    if (!sequence.wantsCheckpoints) {
      return undefined;
    }
    if (index === 0 && hints !== undefined) {
      sequence.keepHints(await hints.placesIn(prompt.tokens, { reasoning: this.#request.reasoning }));
    }
    const tokens = await messageEnds.in(prompt, { reasoning: this.#request.reasoning });
    return { tokens, beginsTurn: index === 0 };
  }

  /** Renders the prompt of a step. If the prompt fills too much of the context, compacts the conversation first. */
  async #fittingPrompt(index: number): Promise<ConversationPrompt> {
    const first = index === 0 ? this.#firstPrompt : undefined;
    // If the adapters changed while the turn waited, the key group is new, and the prompt needs the replies of that
    // group.
    const isValid = first?.scope?.group === this.#services.sequence.replyScope?.group;
    const prompt =
      first !== undefined && isValid ? first : await this.#services.sequence.announce(() => this.#prompt(index));
    const compacted = await this.#services.compaction?.shorten(this.conversation, prompt.tokens.length);
    if (compacted === undefined) {
      return prompt;
    }
    this.#messages.shorten(compacted.messages);
    await this.#emit([{ type: 'compaction', ...compacted.report }]);
    return this.#prompt(index);
  }

  #prompt(index: number): Promise<ConversationPrompt> {
    const { sampledReplies, sequence, source } = this.#services;
    const options = promptOptions(this.#request, this.#format, index);
    return sampledReplies.prompt(sequence, source, this.#messages.ofPrompt, options);
  }

  /** Whether the reply of a step may contain more than free text. */
  #isStructured(index: number): boolean {
    const { toolChoice, jsonSchema, grammar } = promptOptions(this.#request, this.#format, index);
    const mayCall = this.#request.toolRun.tools.size > 0 && toolChoice !== 'none';
    return mayCall || jsonSchema !== undefined || grammar !== undefined;
  }

  /** Each step of a seeded turn has a different seed. If the turn is repeated, its steps have the same seeds again. */
  #samplingOf(index: number): SamplingOptions {
    const { sampling } = this.#request;
    return sampling.seed === undefined || index === 0
      ? sampling
      : { ...sampling, seed: (sampling.seed + index) % MAX_SEED };
  }

  /**
   * Runs the calls of tools with an `execute` function. Calls of unknown tools get an error as their result.
   *
   * @returns whether calls remain that the caller has to answer
   */
  async #answer(calls: readonly ToolCall[]): Promise<boolean> {
    const { toolRun } = this.#request;
    const runnable = calls.filter(({ toolName }) => {
      const prepared = toolRun.tools.get(toolName);
      return prepared === undefined || prepared.tool.execute !== undefined;
    });
    const outcomes = new Map<string, ToolOutcome>();
    if (runnable.length > 0) {
      await this.#services.lock.paused(() => this.#runTools(runnable, outcomes), toolRun.signal);
    }
    this.#messages.addResults(calls, outcomes);
    return runnable.length < calls.length;
  }

  async #runTools(calls: readonly ToolCall[], outcomes: Map<string, ToolOutcome>): Promise<void> {
    for await (const outcome of runCalls(calls, this.#request.toolRun)) {
      const { call, output, isError } = outcome;
      outcomes.set(call.toolCallId, outcome);
      const result: ToolResult = { toolCallId: call.toolCallId, toolName: call.toolName, output, isError };
      this.#messages.toolResults.push(result);
      this.#services.queue.push({ type: 'tool-result', ...result });
    }
  }

  /**
   * Checks the reply against `format`. Pauses the turn during the check, because a user's schema may be slow or may
   * call the agent.
   */
  async #check(
    { message, calls, generated }: FinishedReply,
    index: number,
  ): Promise<Pick<FinishPart, 'object'> | 'retry'> {
    const { maxSteps, toolRun } = this.#request;
    const { lock, queue } = this.#services;
    const format = this.#format;
    const isCut = generated.finishReason !== 'stop' || generated.detail !== undefined;
    if (format === undefined || calls.length > 0 || isCut) {
      return {};
    }
    const parse = () => orAborted(format.parse(message.content), toolRun.signal);
    try {
      return { object: await lock.paused(parse, toolRun.signal) };
    } catch (error) {
      // Once a program has begun to read the reply, another reply cannot replace it.
      if (queue.isRead || index + 1 >= maxSteps || !HeadstartError.isInstance(error, 'REPLY_INVALID')) {
        throw error;
      }
      this.#messages.reject({ reply: message, error });
    }
    await lock.enter(toolRun.signal);
    return 'retry';
  }

  /** Tells the sequence how the next prompt may begin: see {@link expectNextPrompt}. */
  #expectNextPrompt({ content, reasoning }: AssistantMessage): void {
    const { conversation } = this;
    const { messages } = this.#request;
    const withoutRounds = [...messages, { role: 'assistant' as const, content, ...(reasoning && { reasoning }) }];
    const isOmitted = this.#services.mayOmitToolRounds && conversation.length > withoutRounds.length;
    const conversations = isOmitted ? [conversation, withoutRounds] : [conversation];
    const options = promptOptions(this.#request, this.#format, 0);
    expectNextPrompt(this.#services, this.#firstPrompt as Prompt, conversations, options);
  }

  #end(
    { message, generated }: FinishedReply,
    ended: Pick<FinishPart, 'finishReason' | 'detail' | 'stopString' | 'object'>,
  ): StreamEnd<StreamPart, Reply> {
    this.#expectNextPrompt(message);
    const { usage, generation } = this.#request;
    const { object, ...reason } = ended;
    const finish = {
      ...reason,
      usage: usage.total(),
      cache: this.#cacheReport,
      ...(generation.logProbabilities !== undefined && { logProbabilities: generated.logProbabilities }),
      ...('object' in ended && { object }),
    };
    const { content: text, reasoning = '' } = message;
    const { toolCalls, toolResults } = this.#messages;
    return { last: { type: 'finish', ...finish }, result: { text, reasoning, toolCalls, toolResults, ...finish } };
  }
}

/** Seeds are smaller than this number, because llama.cpp takes the number itself as a request for a random seed. */
const MAX_SEED = 4_294_967_295;

function callParts(calls: readonly FinishedCall[]): StreamPart[] {
  return calls.flatMap(({ call, parts }) => [...parts, { type: 'tool-call' as const, ...call }]);
}
