import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import { generate } from './generate.js';
import { GENERATION_CHECKS, type GenerationOptions, resolveGeneration } from './options.js';
import type { FinishDetail, FinishReason, TokenLogProbabilities, Usage } from './parts.js';
import { makeSampler, mergeSampling, type SamplingOptions } from './sampling.js';
import { ConversationSequence } from './sequence.js';
import type { SessionServices } from './setup.js';
import { UsageCounter } from './usage.js';

export interface CompletionOptions extends GenerationOptions {
  /** Turn text such as `<|im_start|>` in the prompt into control tokens: only for prompts that nobody else wrote. @default false */
  parseSpecial?: boolean;
}

/** What a model wrote behind a prompt. */
export interface Completion {
  text: string;
  finishReason: FinishReason;
  detail?: FinishDetail;
  usage: Usage;
  logProbabilities?: readonly TokenLogProbabilities[];
}

const CHECKS = {
  ...GENERATION_CHECKS,
  parseSpecial: (value: unknown) => (typeof value === 'boolean' ? undefined : 'a boolean'),
};

const NEVER = new AbortController().signal;

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
  const { model, gate, contextSize } = services;
  if (typeof prompt !== 'string') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`prompt\` to be a string, got ${describe(prompt)}`);
  }
  const usage = new UsageCounter();
  const generation = resolveGeneration(options, CHECKS);
  const signal = options.signal ?? NEVER;
  const tokens = await promptTokens(services, prompt, options.parseSpecial ?? false);
  const sequence = new ConversationSequence({ ...services, template: new Int32Array(), useCache: false });
  const sampler = await makeSampler(model, mergeSampling(defaults, generation.sampling), {}, tokens);
  const leave = await gate.enter(signal);
  try {
    const generating = generate(model, sequence, {
      ...generation,
      prompt: tokens,
      contextSize,
      sampler,
      preserved: new Set(),
      signal,
      onToken: usage.token,
    });
    let text = '';
    for (;;) {
      const { done, value } = await generating.next();
      if (done) {
        usage.add(tokens.length, value);
        const { finishReason, detail, logProbabilities } = value;
        return {
          text,
          finishReason,
          ...(detail !== undefined && { detail }),
          usage: usage.total(),
          ...(generation.logProbabilities !== undefined && { logProbabilities }),
        };
      }
      text += value;
    }
  } finally {
    leave();
    sampler?.close();
    sequence.close();
  }
}

async function promptTokens(
  { model, contextSize }: SessionServices,
  prompt: string,
  parseSpecial: boolean,
): Promise<Int32Array> {
  const { bos, addsBos } = model.info.vocabulary;
  const text = await model.tokenize(prompt, { parseSpecial });
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
