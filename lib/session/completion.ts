import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { type Generated, Generation } from '../generate/generation.js';
import { makeSampler, mergeSampling } from '../generate/sampling.js';
import type { FinishPart } from '../generate/stream-parts.js';
import { UsageCounter } from '../generate/usage-counter.js';
import { boolean, group, type OptionsOf } from '../option-types.js';
import { describe } from '../options.js';
import type { SamplingOptions } from '../sampling-options.js';
import { AbandonedStream } from './abandoned-stream.js';
import { Checkpoints } from './checkpoints.js';
import { ConversationSequence } from './conversation-sequence.js';
import { ReaderWatch } from './reader-watch.js';
import { GENERATION, resolveGeneration } from './send-options.js';
import type { SessionServices } from './session-setup.js';
import { asAborted } from './turn-errors.js';
import { TurnLock } from './turn-lock.js';

const COMPLETION = {
  ...GENERATION,
  /** Turns text such as `<|im_start|>` in the prompt into control tokens. Use it only for prompts that you wrote yourself. @default false */
  parseSpecial: boolean().default(false),
};

/** Options of a completion. */
export interface CompletionOptions extends OptionsOf<typeof COMPLETION> {}

export const COMPLETION_OPTIONS = group(COMPLETION);

/** What a model wrote after a prompt. */
export interface Completion extends Omit<FinishPart, 'type' | 'object'> {
  /** The generated text, without the prompt and without the stop string that ended it. */
  text: string;
}

/** A part of a completion. The last one is always a `finish`. */
export type CompletionPart =
  | {
      type: 'text-delta';
      /** Never empty, never part of a character. */
      text: string;
    }
  | Omit<FinishPart, 'object'>;

/** No later prompt continues a completion. */
const NO_CHECKPOINTS = new Checkpoints(0);

/**
 * Continues a text without any chat template.
 *
 * @throws HeadstartError as `AgentServer.complete`.
 */
export async function complete(
  services: SessionServices,
  defaults: SamplingOptions,
  prompt: string,
  options: CompletionOptions,
): Promise<Completion> {
  let text = '';
  let completion: Completion | undefined;
  for await (const part of streamComplete(services, defaults, prompt, options)) {
    if (part.type === 'text-delta') {
      text += part.text;
    } else {
      const { type: _, ...finish } = part;
      completion = { text, ...finish };
    }
  }
  return completion as Completion; // a stream without a `finish` throws
}

/**
 * {@link complete} as a stream.
 *
 * @throws HeadstartError as `AgentServer.streamComplete`.
 */
export async function* streamComplete(
  services: SessionServices,
  defaults: SamplingOptions,
  prompt: string,
  options: CompletionOptions,
): AsyncGenerator<CompletionPart, void, undefined> {
  if (typeof prompt !== 'string') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`prompt\` to be a string, got ${describe(prompt)}`);
  }
  const usage = new UsageCounter();
  const generation = resolveGeneration(options, COMPLETION_OPTIONS);
  const signal = combinedSignal(options.signal);
  const tokens = await promptTokens(services, prompt, options.parseSpecial ?? false);
  const run = new CompletionRun(services);
  const sampler = await makeSampler(services.model, mergeSampling(defaults, generation.sampling), {}, tokens);
  const abandoned = new AbandonedStream(run.release);
  let last: FinishPart;
  let failure: { error: unknown } | undefined;
  try {
    await run.lock.enter(eitherSignal(signal, generation.deadline));
    const generating = new Generation(services.model, run.sequence, {
      ...generation,
      prompt: tokens,
      contextSize: services.contextSize,
      sampler,
      preserved: new Set(),
      signal,
      usage,
    });
    for (let text = await generating.next(); text !== undefined; text = await generating.next()) {
      run.watch.partReady();
      yield { type: 'text-delta', text };
      if (run.watch.partTaken()) {
        await run.lock.enter(signal);
      }
    }
    last = finishPart(generating.result, usage, generation.logProbabilities !== undefined);
  } catch (error) {
    const finishReason = HeadstartError.isInstance(error, 'ABORTED') ? 'aborted' : 'error';
    last = { type: 'finish', finishReason, usage: usage.total() };
    failure = {
      error: asAborted(error, 'The completion', { ...generation, timeoutMs: options.timeoutMs }, signal),
    };
  } finally {
    abandoned.end();
    sampler?.close();
    run.release();
  }
  yield last; // nothing is held any more
  if (failure !== undefined) {
    throw failure.error;
  }
}

/** The resources of a completion. They live outside of its generator, so that they can be released if that is abandoned. */
class CompletionRun {
  readonly sequence: ConversationSequence;
  readonly lock: TurnLock;
  readonly watch: ReaderWatch;

  constructor(services: SessionServices) {
    this.sequence = new ConversationSequence({
      ...services,
      checkpoints: NO_CHECKPOINTS,
      template: new Int32Array(),
      useCache: false,
    });
    this.lock = new TurnLock(services.lock, this.sequence);
    this.watch = new ReaderWatch(this.sequence, this.lock);
  }

  readonly release = (): void => {
    this.watch.stop();
    this.lock.leave();
    this.sequence.close();
  };
}

function finishPart(
  { finishReason, detail, logProbabilities }: Generated,
  usage: UsageCounter,
  withLogProbabilities: boolean,
): FinishPart {
  return {
    type: 'finish',
    finishReason,
    ...(detail !== undefined && { detail }),
    usage: usage.total(),
    ...(withLogProbabilities && { logProbabilities }),
  };
}

async function promptTokens(
  { model, renderer, contextSize }: SessionServices,
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
      `The prompt has ${tokens.length} tokens, which leaves no space for a reply in a context of ${contextSize}. Shorten it or raise \`contextSize\`.`,
    );
  }
  return tokens;
}
