import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { Generation } from '../generate/generation.js';
import type { PartQueue } from '../generate/part-queue.js';
import { type ReplyStream, type StreamEnd, StreamedTask } from '../generate/reply-stream.js';
import { makeSampler, mergeSampling } from '../generate/sampling.js';
import type { FinishPart } from '../generate/stream-parts.js';
import { UsageCounter } from '../generate/usage-counter.js';
import { boolean, group, type OptionsOf } from '../option-types.js';
import { describe } from '../options.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { ChatServices } from './chat-host.js';
import { ConversationSequence } from './conversation-sequence.js';
import { GENERATION, type ResolvedGeneration, resolveGeneration } from './send-options.js';
import { requestError } from './turn-errors.js';
import { TurnLock } from './turn-lock.js';

const COMPLETION = {
  ...GENERATION,
  /**
   * Converts text such as `<|im_start|>` in the prompt to control tokens. Set this only for prompts that you wrote
   * yourself. @default false
   */
  parseSpecial: boolean().default(false),
};

/** Options of a completion. */
export interface CompletionOptions extends OptionsOf<typeof COMPLETION> {}

export const COMPLETION_OPTIONS = group(COMPLETION);

/** The text that a model generated after a prompt. */
export interface Completion extends Omit<FinishPart, 'type' | 'object'> {
  /** The generated text, without the prompt and without the stop string that ended it. */
  text: string;
}

/** A part of a completion. The last part is always a `finish`. */
export type CompletionPart =
  | {
      type: 'text-delta';
      /** One or more whole characters. */
      text: string;
    }
  | Omit<FinishPart, 'object'>;

/**
 * Continues a text, without a chat template.
 *
 * @param closing aborts when the agent is closed
 * @throws HeadstartError as `AgentServer.streamComplete`.
 */
export function streamComplete(
  services: ChatServices,
  defaults: SamplingOptions,
  prompt: string,
  options: CompletionOptions,
  closing: AbortSignal,
): ReplyStream<CompletionPart, Completion> {
  return new StreamedTask(async (queue, leaveSignal) => {
    if (typeof prompt !== 'string') {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected \`prompt\` to be a string, got ${describe(prompt)}`);
    }
    const generation = resolveGeneration(options, COMPLETION_OPTIONS);
    const signal = combinedSignal(closing, leaveSignal, options.signal);
    const usage = new UsageCounter();
    const stopDropping = queue.closeOnAbort(signal);
    try {
      const tokens = await promptTokens(services, prompt, options.parseSpecial ?? false);
      const end = await run(
        services,
        { ...generation, sampling: mergeSampling(defaults, generation.sampling), tokens, signal, usage },
        queue,
      );
      await queue.untilDrained(signal); // until then, as in a turn, the reader may still leave the stream
      return end;
    } catch (error) {
      const limit = { deadline: generation.deadline, timeoutMs: options.timeoutMs, signal };
      throw requestError(error, 'completion', { closing, limit, usage });
    } finally {
      stopDropping();
    }
  });
}

interface CompletionRun extends ResolvedGeneration {
  /** The options of the agent, overridden by those of the completion. */
  sampling: SamplingOptions;
  tokens: Int32Array;
  signal: AbortSignal;
  usage: UsageCounter;
}

async function run(
  services: ChatServices,
  request: CompletionRun,
  queue: PartQueue<CompletionPart>,
): Promise<StreamEnd<CompletionPart, Completion>> {
  const { model, contextSize } = services;
  const { tokens, sampling, signal, usage, ...generation } = request;
  const setup = { kind: 'request', template: new Int32Array(), useCache: true } as const;
  const sequence = new ConversationSequence({ ...services, ...setup });
  const lock = new TurnLock(services.lock, sequence);
  const sampler = await makeSampler(model, sampling, {}, tokens);
  try {
    await lock.enter(eitherSignal(signal, generation.deadline));
    const generating = new Generation(model, sequence, {
      ...generation,
      prompt: tokens,
      contextSize,
      sampler,
      preserved: new Set(),
      signal,
      usage,
    });
    let text = '';
    for (let piece = await generating.next(); piece !== undefined; piece = await generating.next()) {
      text += piece;
      queue.push({ type: 'text-delta', text: piece });
      const pause = lock.whileFull(queue, signal);
      if (pause !== undefined) {
        await pause;
      }
    }
    const { finishReason, detail, logProbabilities } = generating.result;
    const finish = {
      finishReason,
      ...(detail !== undefined && { detail }),
      usage: usage.total(),
      ...(generation.logProbabilities !== undefined && { logProbabilities }),
    };
    return { last: { type: 'finish', ...finish }, result: { text, ...finish } };
  } finally {
    sampler?.close();
    lock.leave();
    sequence.close();
  }
}

async function promptTokens(
  { model, renderer, contextSize }: ChatServices,
  prompt: string,
  parseSpecial: boolean,
): Promise<Int32Array> {
  const { bos, addsBos } = model.info.vocabulary;
  const text = await (parseSpecial ? model.tokenize(prompt, { parseSpecial }) : renderer.plainTokens(prompt));
  const tokens = addsBos && bos !== null ? Int32Array.of(bos, ...text) : text;
  if (tokens.length === 0) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected a prompt of at least one token, got an empty one');
  }
  if (tokens.length >= contextSize) {
    throw new HeadstartError(
      'CONTEXT_FULL',
      `The prompt has ${tokens.length} tokens, which leaves no space for a reply in a context of ${contextSize}. ` +
        'Shorten the prompt or raise `contextSize`.',
    );
  }
  return tokens;
}
