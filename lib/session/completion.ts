import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { Generation } from '../generate/generation.js';
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
  /** Turn text such as `<|im_start|>` in the prompt into control tokens: only for prompts that nobody else wrote. @default false */
  parseSpecial: boolean().default(false),
};

/** How a text is continued. */
export interface CompletionOptions extends OptionsOf<typeof COMPLETION> {}

export const COMPLETION_OPTIONS = group(COMPLETION);

/** What a model wrote behind a prompt. */
export interface Completion extends Omit<FinishPart, 'type' | 'object'> {
  /** Without the prompt, and without a stop string that ended it. */
  text: string;
}

/** A piece of a completion; a `finish` is always the last. */
export type CompletionPart =
  | {
      type: 'text-delta';
      /** Never empty, never part of a character. */
      text: string;
    }
  | Omit<FinishPart, 'object'>;

/** No prompt comes behind a completion's that would go on from it. */
const NO_CHECKPOINTS = new Checkpoints(0);

/**
 * Goes on from a text, without any chat template.
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
  return completion as Completion; // a stream that has none throws
}

/**
 * {@link complete}, piece by piece.
 *
 * @throws HeadstartError as `AgentServer.streamComplete`.
 */
export async function* streamComplete(
  services: SessionServices,
  defaults: SamplingOptions,
  prompt: string,
  options: CompletionOptions,
): AsyncGenerator<CompletionPart, void, undefined> {
  const { model, lock, contextSize } = services;
  if (typeof prompt !== 'string') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`prompt\` to be a string, got ${describe(prompt)}`);
  }
  const usage = new UsageCounter();
  const generation = resolveGeneration(options, COMPLETION_OPTIONS);
  const signal = combinedSignal(options.signal);
  const tokens = await promptTokens(services, prompt, options.parseSpecial ?? false);
  const sequence = new ConversationSequence({
    ...services,
    checkpoints: NO_CHECKPOINTS,
    template: new Int32Array(),
    useCache: false,
  });
  const sampler = await makeSampler(model, mergeSampling(defaults, generation.sampling), {}, tokens);
  const passage = new TurnLock(lock, sequence);
  const held: Held = { passage, sequence, offers: new ReaderWatch(sequence, passage) };
  const life = new AbandonedStream(() => giveBack(held));
  let last: FinishPart;
  let failure: { error: unknown } | undefined;
  try {
    await passage.enter(eitherSignal(signal, generation.deadline));
    const generating = new Generation(model, sequence, {
      ...generation,
      prompt: tokens,
      contextSize,
      sampler,
      preserved: new Set(),
      signal,
      usage,
    });
    for (let text = await generating.next(); text !== undefined; text = await generating.next()) {
      held.offers.offer();
      yield { type: 'text-delta', text };
      if (held.offers.taken()) {
        await passage.enter(signal);
      }
    }
    const { finishReason, detail, logProbabilities } = generating.result;
    last = {
      type: 'finish',
      finishReason,
      ...(detail !== undefined && { detail }),
      usage: usage.total(),
      ...(generation.logProbabilities !== undefined && { logProbabilities }),
    };
  } catch (error) {
    const finishReason = HeadstartError.isInstance(error, 'ABORTED') ? 'aborted' : 'error';
    last = { type: 'finish', finishReason, usage: usage.total() };
    failure = {
      error: asAborted(error, 'The completion', { ...generation, timeoutMs: options.timeoutMs }, signal),
    };
  } finally {
    life.end();
    sampler?.close();
    giveBack(held);
  }
  yield last; // and holds nothing
  if (failure !== undefined) {
    throw failure.error;
  }
}

/** What a completion holds outside of its generator. */
interface Held {
  passage: TurnLock;
  sequence: ConversationSequence;
  offers: ReaderWatch;
}

function giveBack({ passage, sequence, offers }: Held): void {
  offers.end();
  passage.leave();
  sequence.close();
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
      `The prompt has ${tokens.length} tokens and leaves no room for a reply in a context of ${contextSize}: shorten it or raise \`contextSize\``,
    );
  }
  return tokens;
}
