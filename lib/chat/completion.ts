import { cacheReport } from '../cache/cache-report.js';
import { HeadstartError } from '../errors.js';
import { Generation } from '../generate/generation.js';
import type { PartQueue } from '../generate/part-queue.js';
import type { PrefillProgress } from '../generate/prefill-progress.js';
import { type ReplyStream, type StreamEnd, StreamedTask } from '../generate/reply-stream.js';
import { makeSampler, mergeSampling } from '../generate/sampling.js';
import type { FinishPart } from '../generate/stream-parts.js';
import { boolean, callable, group, type OptionsOf, text } from '../option-types.js';
import { describe } from '../options.js';
import type { SamplingOptions } from '../sampling-options.js';
import { concatTokens } from '../tokens.js';
import type { ChatServices } from './chat-host.js';
import { ConversationSequence } from './conversation-sequence.js';
import { textAt } from './prompt-places.js';
import { type PreparedReply, type ReplyLimits, type ReplyOwner, readLimits, runReply } from './reply-run.js';
import { GENERATION } from './send-options.js';
import { contextFull } from './turn-errors.js';
import { TurnLock } from './turn-lock.js';

const COMPLETION = {
  ...GENERATION,
  /**
   * Converts text such as `<|im_start|>` in the prompt to control tokens. Set this only for prompts that you wrote
   * yourself. @default false
   */
  parseSpecial: boolean().default(false),
  /** The tenant of the completion. Different tenants never share cached tokens. @default none */
  tenant: text().optional(),
  /**
   * Called with the number of tokens of the prompt, as soon as the prompt is known to fit into the context. The
   * completion may then still wait for a sequence. @default none
   */
  onPrompt: callable<(tokens: number) => void>().optional(),
  /**
   * Called while the model reads the prompt: when the longest reusable prefix is loaded, and after each decode of the
   * prompt. The last call has `processed` equal to `total`. If the function throws, the completion fails with this
   * error. @default none
   */
  onPrefill: callable<(progress: PrefillProgress) => void>().optional(),
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
    const limits = readLimits(options, COMPLETION_OPTIONS, closing, leaveSignal);
    return runReply(OWNER, limits, queue, async () => {
      const tokens = await promptTokens(services, prompt, options.parseSpecial ?? false);
      options.onPrompt?.(tokens.length);
      const sampling = mergeSampling(defaults, limits.generation.sampling);
      const setup = { kind: 'request', template: new Int32Array(), useCache: true } as const;
      const sequence = new ConversationSequence({ ...services, ...setup, tenant: options.tenant });
      const lock = new TurnLock(services.lock, sequence);
      const request = { ...limits, tokens, sampling, onPrefill: options.onPrefill };
      const run = () => generate({ ...services, sequence, lock, queue }, request);
      return { lock, run };
    });
  });
}

const OWNER: ReplyOwner<PreparedReply<CompletionPart, Completion>> = {
  what: 'completion',
  owner: 'agent',
  end: (sequence) => sequence.close(),
};

interface CompletionServices extends Pick<ChatServices, 'model' | 'contextSize'> {
  sequence: ConversationSequence;
  lock: TurnLock;
  queue: PartQueue<CompletionPart>;
}

interface CompletionRun extends ReplyLimits {
  tokens: Int32Array;
  /** The options of the agent, overridden by those of the completion. */
  sampling: SamplingOptions;
  onPrefill: ((progress: PrefillProgress) => void) | undefined;
}

async function generate(
  { model, contextSize, sequence, lock, queue }: CompletionServices,
  { tokens, sampling, generation, signal, usage, onPrefill }: CompletionRun,
): Promise<StreamEnd<CompletionPart, Completion>> {
  const sampler = await makeSampler(model, sampling, {}, tokens);
  try {
    const generating = new Generation(model, sequence, {
      ...generation,
      prompt: tokens,
      contextSize,
      sampler,
      preserved: new Set(),
      signal,
      usage,
      onPrefill,
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
    const { finishReason, detail, stopString, logProbabilities, loaded } = generating.result;
    const place = (index: number) => ({ index, text: textAt(model, tokens, index) });
    const finish = {
      finishReason,
      ...(detail !== undefined && { detail }),
      ...(stopString !== undefined && { stopString }),
      usage: usage.total(),
      cache: { ...cacheReport(loaded, tokens.length, place), ms: loaded.ms },
      ...(generation.logProbabilities !== undefined && { logProbabilities }),
    };
    return { last: { type: 'finish', ...finish }, result: { text, ...finish } };
  } finally {
    sampler?.close();
    sequence.close(); // the reader may take long to read the last parts
  }
}

async function promptTokens(
  { model, renderer, contextSize }: ChatServices,
  prompt: string,
  parseSpecial: boolean,
): Promise<Int32Array> {
  const { bos, addsBos } = model.info.vocabulary;
  const text = await (parseSpecial ? model.tokenize(prompt, { parseSpecial }) : renderer.plainTokens(prompt));
  const tokens = addsBos && bos !== null ? concatTokens([[bos], text]) : text;
  if (tokens.length === 0) {
    throw new HeadstartError('INVALID_ARGUMENT', 'Expected a prompt of at least one token, got an empty one');
  }
  if (tokens.length >= contextSize) {
    throw contextFull('The prompt', tokens.length, contextSize, 'Shorten the prompt or raise `contextSize`.');
  }
  return tokens;
}
