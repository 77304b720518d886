import { type CheckpointPlace, type Generated, Generation } from '../generate/generation.js';
import type { PrefillProgress } from '../generate/prefill-progress.js';
import { ReasoningCounter } from '../generate/reasoning-counter.js';
import { type ReplyDelta, ReplyReader } from '../generate/reply-reader.js';
import type { ReplySequence } from '../generate/reply-sequence.js';
import type { ConversationPrompt } from '../generate/sampled-replies.js';
import { makeSampler } from '../generate/sampling.js';
import type { StreamPart } from '../generate/stream-parts.js';
import type { CallIds } from '../generate/tool-calls.js';
import { type FinishedCall, ToolInputs } from '../generate/tool-input.js';
import type { UsageCounter } from '../generate/usage-counter.js';
import { VisibleReply } from '../generate/visible-reply.js';
import type { Model } from '../native/model.js';
import type { ReplyToolCall } from '../native/reply.js';
import type { Sampler } from '../native/sampler.js';
import type { AssistantMessage } from '../prompt/messages.js';
import type { Renderer } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { ResolvedGeneration } from './send-options.js';

export interface StepReplyServices {
  model: Model;
  renderer: Renderer;
  sequence: ReplySequence;
  contextSize: number;
}

export interface StepReplyRequest {
  prompt: ConversationPrompt;
  checkpoint: CheckpointPlace | undefined;
  generation: ResolvedGeneration;
  sampling: SamplingOptions;
  /**
   * Whether the reply may contain tool calls or JSON. Some models put JSON into a code fence, which must be removed.
   */
  isStructured: boolean;
  /** Maximum number of calls. The reply ends when one more call begins. */
  maxCalls: number;
  ids: CallIds;
  signal: AbortSignal;
  usage: UsageCounter;
  /** Called while the model reads the prompt. */
  onPrefill: ((progress: PrefillProgress) => void) | undefined;
}

/** The end of a reply. */
export interface FinishedReply {
  /** The text and reasoning that {@link StepReply.next} has not returned yet. The parts of calls are in `calls`. */
  parts: readonly StreamPart[];
  message: AssistantMessage;
  calls: readonly FinishedCall[];
  generated: Generated;
}

/** Generates the reply of one step and returns it as parts of a stream. */
export class StepReply {
  readonly #services: StepReplyServices;
  readonly #request: StepReplyRequest;
  readonly #reader: VisibleReply;
  readonly #inputs: ToolInputs;
  readonly #reasoning: ReasoningCounter;
  readonly #generation: Generation;
  readonly #samplers: (Sampler | undefined)[];
  #isFinished = false;

  /** Prepares the generation of a reply. The caller must close the reply, even after an error. */
  static async open(services: StepReplyServices, request: StepReplyRequest): Promise<StepReply> {
    const { tokens, format } = request.prompt;
    return new StepReply(services, request, await makeSampler(services.model, request.sampling, format, tokens));
  }

  private constructor(services: StepReplyServices, request: StepReplyRequest, sampler: Sampler | undefined) {
    const { prompt, generation, isStructured, maxCalls, ids, usage } = request;
    this.#services = services;
    this.#request = request;
    this.#reader = new VisibleReply(new ReplyReader(services.model, prompt.format, isStructured), generation.stop);
    this.#inputs = new ToolInputs(ids, { hasWrittenIds: prompt.format.hasCallIds, maxCalls });
    this.#reasoning = new ReasoningCounter(this.#reader, usage);
    this.#samplers = [sampler];
    this.#generation = this.#generate(sampler);
  }

  #generate(sampler: Sampler | undefined): Generation {
    const { model, renderer, sequence, contextSize } = this.#services;
    const { prompt, checkpoint, generation: options, signal, usage, onPrefill } = this.#request;
    const { format } = prompt;
    const hasPatterns = format.grammarLazy && format.grammarTriggers.some(({ type }) => type.startsWith('pattern'));
    return new Generation(model, sequence, {
      prompt: prompt.tokens,
      checkpoint,
      contextSize,
      maxTokens: options.maxTokens,
      stop: [], // `VisibleReply` searches for stop strings, because only it knows which part of the reply is text
      endings: format.additionalStops,
      sampler,
      longReplySampler: hasPatterns ? this.#samplerWithoutGrammar : undefined,
      isComplete: () => this.#reader.stopped || this.#hasTooManyCalls,
      logProbabilities: options.logProbabilities,
      repetition: options.repetition,
      preserved: renderer.preservedTokens(format),
      signal,
      deadline: options.deadline,
      usage,
      onPrefill,
    });
  }

  /**
   * Returns a sampler for the rest of a long reply. The sampler has no grammar, so a later call of this reply is not
   * constrained. Returns undefined if a call has already begun.
   */
  readonly #samplerWithoutGrammar = async (text: Int32Array): Promise<Sampler | undefined> => {
    if (this.#reader.calls > 0) {
      return undefined;
    }
    const { model } = this.#services;
    const sampler = (await makeSampler(model, this.#request.sampling, {}, text)) ?? (await model.createSampler());
    this.#samplers.push(sampler);
    return sampler;
  };

  get #hasTooManyCalls(): boolean {
    return this.#reader.calls > this.#request.maxCalls;
  }

  /**
   * Reads the next piece of text. Returns the parts that have become certain, possibly none. Returns undefined at the
   * end of the reply.
   *
   * @throws HeadstartError the errors of generation and of parsing.
   */
  async next(): Promise<readonly StreamPart[] | undefined> {
    const piece = await this.#generation.next();
    if (piece === undefined) {
      return undefined;
    }
    const read = this.#reader.push(piece);
    const delta = read instanceof Promise ? await read : read;
    this.#reasoning.update();
    return [...textParts(delta), ...this.#inputs.read(this.#reader.begunCalls)];
  }

  /** Ends the reply, after {@link next} returned undefined. */
  async finish(): Promise<FinishedReply> {
    const reader = this.#reader;
    const { result } = this.#generation;
    const isCut = result.finishReason !== 'stop' || reader.stopped || this.#hasTooManyCalls;
    const { toolCalls, ...rest } = await reader.finish(isCut);
    this.#reasoning.update();
    const { stopString } = reader;
    const generated: Generated =
      stopString === undefined ? result : { ...result, finishReason: 'stop', detail: 'stop-string', stopString };
    // No time is left for calls once `timeoutMs` has passed.
    const written = generated.finishReason === 'aborted' ? [] : toolCalls.slice(0, this.#request.maxCalls);
    const calls = this.#inputs.finish(written);
    this.#isFinished = true;
    const isEnded = !isCut && !reader.stopped && this.#generation.hasEndToken;
    this.#remember(isEnded && written.length === toolCalls.length, written);
    return { parts: textParts(rest), message: messageOf(reader, calls), calls, generated };
  }

  /** Keeps the sampled tokens for later prompts. */
  #remember(isWhole: boolean, toolCalls: readonly ReplyToolCall[]): void {
    const { prompt, isStructured } = this.#request;
    const { text, reasoning } = this.#reader;
    const { tokens } = this.#generation;
    prompt.remember({ tokens, isWhole, values: { text, reasoning, toolCalls }, isStructured });
  }

  /** Keeps the tokens of a reply that was not finished, and releases the samplers. */
  close(): void {
    if (!this.#isFinished) {
      this.#remember(false, []); // the reader of the stream may send back what it received
    }
    for (const sampler of this.#samplers) {
      sampler?.close();
    }
  }
}

function textParts({ text, reasoning }: ReplyDelta): StreamPart[] {
  return [
    ...(reasoning === '' ? [] : [{ type: 'reasoning-delta', text: reasoning } as const]),
    ...(text === '' ? [] : [{ type: 'text-delta', text } as const]),
  ];
}

function messageOf({ text, reasoning }: VisibleReply, calls: readonly FinishedCall[]): AssistantMessage {
  return {
    role: 'assistant',
    content: text,
    ...(reasoning !== '' && { reasoning }),
    ...(calls.length > 0 && { toolCalls: calls.map(({ call }) => call) }),
  };
}
