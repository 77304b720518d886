import { orAborted, throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { type CheckpointPlace, type Generated, Generation } from '../generate/generation.js';
import { ReplyReader } from '../generate/reply-reader.js';
import { asMessages, type PreparedFormat, type Rejected } from '../generate/response-format.js';
import { makeSampler } from '../generate/sampling.js';
import type { FinishPart, StreamPart, TurnPart } from '../generate/stream-parts.js';
import { CallIds } from '../generate/tool-calls.js';
import { type FinishedCall, ToolInputs } from '../generate/tool-input.js';
import type { UsageCounter } from '../generate/usage-counter.js';
import { VisibleReply } from '../generate/visible-reply.js';
import type { Model } from '../native/model.js';
import type { MessageEnds } from '../prompt/message-end.js';
import type { AssistantMessage, ChatMessage, ToolCall, ToolMessage } from '../prompt/messages.js';
import type { Prompt, Renderer, TemplateSource } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import { runCalls, type ToolOutcome, type ToolRun } from '../tools/execute.js';
import type { ToolChoice } from '../tools/tool.js';
import { type Compacted, type CompactionOptions, compactDuringTurn, needsCompaction } from './compaction/compaction.js';
import type { ConversationSequence } from './conversation-sequence.js';
import { ReplyStream } from './reply-stream.js';
import type { ResolvedGeneration } from './send-options.js';
import { noRoom } from './turn-errors.js';
import type { TurnLock } from './turn-lock.js';

export interface TurnServices {
  model: Model;
  renderer: Renderer;
  messageEnds: MessageEnds;
  sequence: ConversationSequence;
  passage: TurnLock;
  contextSize: number;
  source: TemplateSource;
  /** Undefined: the conversation is never shortened. */
  compaction: CompactionOptions | undefined;
  /** Called with the first prompt of the turn, before anything is decoded. */
  onPrompt: (prompt: Int32Array) => void;
}

export interface TurnRequest {
  /** The conversation, this turn's own messages last. */
  messages: readonly ChatMessage[];
  generation: ResolvedGeneration;
  sampling: SamplingOptions;
  toolChoice: ToolChoice;
  maxSteps: number;
  toolRun: ToolRun;
  format: PreparedFormat | undefined;
  /** Whether a reply that `format` does not allow is asked for again: not if a reader has its text already. */
  asksAgain: boolean;
  reasoning: boolean;
  signal: AbortSignal;
  usage: UsageCounter;
}

/** One step: a prompt, and the reply to it. */
interface Step {
  message: AssistantMessage;
  calls: readonly FinishedCall[];
  generated: Generated;
}

/** A user's message, the model's reply, and all rounds of tool calls between them. */
export class Turn {
  /** With what the turn added, and shortened where that was needed. */
  #conversation: ChatMessage[];
  /** All calls so far, also those that a summary stands for now: a stream's ids are not used twice. */
  readonly #added: ChatMessage[] = [];
  readonly #services: TurnServices;
  readonly #request: TurnRequest;
  readonly #stages = this.#run();
  /** The model wrote no summary, and will hardly write one at the next step. */
  #hasNoSummary = false;
  /** Part of the prompts of this turn, and of nothing later. */
  readonly #rejected: Rejected[] = [];
  /** The reply that is being read. */
  #reading: ReplyStream | undefined;

  constructor(services: TurnServices, request: TurnRequest) {
    this.#services = services;
    this.#request = request;
    this.#conversation = [...request.messages];
  }

  /** The conversation as it is now. */
  get conversation(): readonly ChatMessage[] {
    return this.#conversation;
  }

  /** The next part; undefined behind the last. The parts of a reply come straight from it, past all generators. */
  async next(): Promise<TurnPart | undefined> {
    for (;;) {
      const part = await this.#reading?.next();
      if (part !== undefined) {
        return part;
      }
      this.#reading = undefined;
      const { done, value } = await this.#stages.next();
      if (done) {
        return undefined;
      }
      if (!(value instanceof ReplyStream)) {
        return value;
      }
      this.#reading = value;
    }
  }

  /** Ends it where it is. Idempotent. */
  async end(): Promise<void> {
    await this.#stages.return();
  }

  async *#run(): AsyncGenerator<TurnPart | ReplyStream, void, undefined> {
    const { maxSteps, usage } = this.#request;
    for (let index = 0; ; index++) {
      const step = yield* this.#step(index);
      const checked = await this.#check(step, index);
      if (checked === 'again') {
        yield { type: 'again' };
        usage.nextStep();
        continue;
      }
      this.#add(freeze(step.message));
      yield* callParts(step.calls);
      const { finishReason, detail } = step.generated;
      const waiting = yield* this.#answer(step.calls.map(({ call }) => call));
      if (!waiting && (step.calls.length === 0 || finishReason !== 'stop')) {
        yield this.#finish(step, { finishReason, ...(detail !== undefined && { detail }), ...checked });
        return;
      }
      if (waiting || index + 1 >= maxSteps) {
        yield this.#finish(step, { finishReason: 'tool-calls', ...(!waiting && { detail: 'max-steps' }) });
        return;
      }
      usage.nextStep();
    }
  }

  async *#step(index: number): AsyncGenerator<StreamPart | ReplyStream, Step, undefined> {
    const { model, renderer, sequence, contextSize, compaction } = this.#services;
    const { generation: options, signal, usage, toolRun } = this.#request;
    throwIfAborted(signal);
    const rendered = yield* this.#roomyPrompt(index);
    const { tokens: prompt, format } = rendered;
    if (prompt.length >= contextSize) {
      throw this.#rejected.at(-1)?.error ?? noRoom(prompt.length, contextSize, compaction !== undefined);
    }
    if (index === 0) {
      this.#services.onPrompt(prompt);
    }
    const hasForm = this.#hasTools || this.#request.format !== undefined; // JSON may come in a code fence
    const reader = new VisibleReply(new ReplyReader(model, format, hasForm), options.stop);
    const maxCalls = toolRun.maxParallelTools === 1 ? 1 : Number.POSITIVE_INFINITY;
    const ids = new CallIds([...this.#request.messages, ...this.#added]);
    const inputs = new ToolInputs(ids, { hasWrittenIds: format.hasCallIds, maxCalls });
    const samplers = [await makeSampler(model, this.#samplingOf(index), format, prompt)];
    const hasPatterns = format.grammarLazy && format.grammarTriggers.some(({ type }) => type.startsWith('pattern'));
    const longReplySampler = async (text: Int32Array) => {
      if (reader.calls > 0) {
        return undefined;
      }
      // Without the grammar: a call behind so much text is the model's own affair.
      const free = (await makeSampler(model, this.#samplingOf(index), {}, text)) ?? (await model.createSampler());
      samplers.push(free);
      return free;
    };
    try {
      const generation = new Generation(model, sequence, {
        prompt,
        checkpoint: await this.#checkpointIn(rendered, index),
        contextSize,
        maxTokens: options.maxTokens,
        stop: [], // the text alone is searched for them, once it is known
        endings: format.additionalStops,
        sampler: samplers[0],
        longReplySampler: hasPatterns ? longReplySampler : undefined,
        isComplete: () => reader.stopped || reader.calls > maxCalls,
        logProbabilities: options.logProbabilities,
        repetition: options.repetition,
        preserved: renderer.preservedTokens(format),
        signal,
        deadline: options.deadline,
        usage,
      });
      const reading = new ReplyStream(generation, reader, inputs, usage);
      yield reading;
      const { result } = reading;
      const isCut = result.finishReason !== 'stop' || reader.stopped || reader.calls > maxCalls;
      const { parts, toolCalls } = await reading.finish(isCut);
      const generated: Generated = reader.stopped ? { ...result, finishReason: 'stop', detail: 'stop-string' } : result;
      yield* parts;
      const written = generated.finishReason === 'aborted' ? [] : toolCalls.slice(0, maxCalls); // there is no time for them
      const calls = reading.finishCalls(written);
      return { message: messageOf(reader, calls), calls, generated };
    } finally {
      for (const sampler of samplers) {
        sampler?.close();
      }
    }
  }

  /** The end of the newest message: what opens the reply is often left out, or read otherwise, once the reply is history. */
  async #checkpointIn(prompt: Prompt, index: number): Promise<CheckpointPlace | undefined> {
    const { sequence, messageEnds } = this.#services;
    if (!sequence.wantsCheckpoints) {
      return undefined;
    }
    const tokens = await messageEnds.in(prompt, { reasoning: this.#request.reasoning });
    return { tokens, beginsTurn: index === 0 };
  }

  /** The prompt of a step; where it takes too much of the context, that of the shortened conversation. */
  async *#roomyPrompt(index: number): AsyncGenerator<StreamPart, Prompt, undefined> {
    const { compaction, contextSize } = this.#services;
    const prompt = await this.#prompt(index);
    if (compaction === undefined || !needsCompaction(prompt.tokens.length, contextSize, compaction)) {
      return prompt;
    }
    const hasRoom = prompt.tokens.length < contextSize;
    const compacted = hasRoom && this.#hasNoSummary ? undefined : await this.#compact(compaction, hasRoom);
    if (compacted === undefined) {
      return prompt;
    }
    this.#conversation = [...compacted.messages];
    yield { type: 'compaction', ...compacted.report };
    return this.#prompt(index);
  }

  /** @param hasRoom then a model that writes no summary is no reason to fail: the conversation goes on as it is */
  async #compact(options: CompactionOptions, hasRoom: boolean): Promise<Compacted | undefined> {
    const { sampling, toolRun } = this.#request;
    const { signal } = toolRun; // there is no time for a summary behind the deadline of the reply either
    try {
      return await compactDuringTurn({ ...this.#services, sampling, options, signal }, this.#conversation);
    } catch (error) {
      if (hasRoom && HeadstartError.isInstance(error) && NO_SUMMARY.has(error.code)) {
        this.#services.sequence.afterFailure();
        this.#hasNoSummary = true;
        return undefined;
      }
      throw error;
    }
  }

  #prompt(index: number): Promise<Prompt> {
    const { renderer, source } = this.#services;
    const { format, reasoning, toolRun } = this.#request;
    return renderer.prompt(source, [...this.#conversation, ...this.#rejected.flatMap(asMessages)], {
      toolChoice: this.#choiceOf(index),
      parallelToolCalls: toolRun.maxParallelTools > 1,
      reasoning,
      jsonSchema: format?.grammarSchema,
    });
  }

  /** What must be called is called in the first reply: asked for again and again, it would never end. */
  #choiceOf(index: number): ToolChoice {
    const { toolChoice, format } = this.#request;
    if (format !== undefined) {
      return 'none';
    }
    return index === 0 || toolChoice === 'none' ? toolChoice : 'auto';
  }

  get #hasTools(): boolean {
    const { toolRun, toolChoice, format } = this.#request;
    return toolRun.tools.size > 0 && toolChoice !== 'none' && format === undefined;
  }

  /** The steps of a seeded turn draw other numbers each, and the same in every run. */
  #samplingOf(index: number): SamplingOptions {
    const { sampling } = this.#request;
    return sampling.seed === undefined || index === 0
      ? sampling
      : { ...sampling, seed: (sampling.seed + index) % MAX_SEED };
  }

  /** Runs the calls that have a tool to run; the results stand in the order of the calls. @returns whether others wait */
  async *#answer(calls: readonly ToolCall[]): AsyncGenerator<StreamPart, boolean, undefined> {
    const { toolRun } = this.#request;
    const runnable = calls.filter(({ toolName }) => {
      const known = toolRun.tools.get(toolName);
      return known === undefined || known.tool.execute !== undefined; // one that is not there is an error to tell
    });
    const outcomes = yield* this.#runTools(runnable);
    this.#addResults(calls, outcomes);
    return runnable.length < calls.length;
  }

  /** While tools run, others may have the sequence, and change what all compute with. */
  async *#runTools(calls: readonly ToolCall[]): AsyncGenerator<StreamPart, Map<string, ToolOutcome>, undefined> {
    const outcomes = new Map<string, ToolOutcome>();
    if (calls.length === 0) {
      return outcomes;
    }
    const { sequence, passage } = this.#services;
    const { toolRun } = this.#request;
    passage.stepOut();
    for await (const outcome of runCalls(calls, toolRun)) {
      const { call, output, isError } = outcome;
      outcomes.set(call.toolCallId, outcome);
      yield { type: 'tool-result', toolCallId: call.toolCallId, toolName: call.toolName, output, isError };
      sequence.makePreemptible(); // whoever took this part is not the last to wait for
    }
    await passage.enter(toolRun.signal); // as long as the turn's time allows
    return outcomes;
  }

  #addResults(calls: readonly ToolCall[], outcomes: ReadonlyMap<string, ToolOutcome>): void {
    if ([...outcomes.values()].some(({ call }) => !calls.includes(call))) {
      const message = this.#conversation.pop() as AssistantMessage; // what ran is what the conversation says
      const toolCalls = calls.map((call) => outcomes.get(call.toolCallId)?.call ?? call);
      this.#conversation.push(freeze({ ...message, toolCalls }));
    }
    for (const { toolCallId, toolName } of calls) {
      const outcome = outcomes.get(toolCallId);
      if (outcome !== undefined) {
        const message: ToolMessage = { role: 'tool', toolCallId, toolName, content: outcome.content };
        this.#add(Object.freeze(message));
      }
    }
  }

  #add(message: ChatMessage): void {
    this.#conversation.push(message);
    this.#added.push(message);
  }

  /** A check of the program's own may take as long as the turn's time allows, and ask the agent for anything: nothing computes here. */
  async #check({ message, generated }: Step, index: number): Promise<Pick<FinishPart, 'object'> | 'again'> {
    const { format, asksAgain, maxSteps, toolRun } = this.#request;
    const { passage } = this.#services;
    if (format === undefined || generated.finishReason !== 'stop' || generated.detail !== undefined) {
      return {}; // a stop string cuts it off
    }
    passage.stepOut();
    try {
      return { object: await orAborted(format.parse(message.content), toolRun.signal) };
    } catch (error) {
      if (!asksAgain || index + 1 >= maxSteps || !HeadstartError.isInstance(error, 'REPLY_INVALID')) {
        throw error;
      }
      this.#rejected.push({ reply: freeze(message), error });
    }
    await passage.enter(toolRun.signal);
    return 'again';
  }

  #finish(step: Step, ended: Pick<FinishPart, 'finishReason' | 'detail' | 'object'>): FinishPart {
    const { usage, generation } = this.#request;
    const { object, ...reason } = ended;
    return {
      type: 'finish',
      ...reason,
      usage: usage.total(),
      ...(generation.logProbabilities !== undefined && { logProbabilities: step.generated.logProbabilities }),
      ...('object' in ended && { object }),
    };
  }
}

const MAX_SEED = 4_294_967_295;

/** Why there may be none, though all else is well. */
const NO_SUMMARY: ReadonlySet<string> = new Set(['REPLY_INVALID', 'CONTEXT_FULL']);

function messageOf(reader: VisibleReply, calls: readonly FinishedCall[]): AssistantMessage {
  return {
    role: 'assistant',
    content: reader.text,
    ...(reader.reasoning !== '' && { reasoning: reader.reasoning }),
    ...(calls.length > 0 && { toolCalls: calls.map(({ call }) => call) }),
  };
}

function* callParts(calls: readonly FinishedCall[]): Generator<StreamPart, void, undefined> {
  for (const { call, parts } of calls) {
    yield* parts;
    yield { type: 'tool-call', ...call };
  }
}

function freeze(message: AssistantMessage): AssistantMessage {
  return Object.freeze({
    ...message,
    ...(message.toolCalls !== undefined && {
      toolCalls: Object.freeze(message.toolCalls.map((call) => Object.freeze({ ...call }))),
    }),
  });
}
