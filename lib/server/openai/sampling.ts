// Reads the sampling options of OpenAI's API, and the options that llama-server adds. The fields that Anthropic's API has
// too have the same names and meanings.
import { z } from 'zod';
import type { SamplingOptions } from '../../sampling-options.js';

const number = z.number().nullish();
const integer = z.int().nullish();

export const SAMPLING_FIELDS = {
  seed: integer.describe('Makes the reply repeatable. Each choice gets a seed of its own.'),
  temperature: number.describe('How random the reply is. 0 always takes the most likely token.'),
  top_p: number.describe('Samples from the most likely tokens that together have this probability.'),
  top_k: integer.describe('Samples from this number of most likely tokens.'),
  min_p: number.describe('Samples only from tokens with at least this part of the highest probability.'),
  typical_p: number.describe('Locally typical sampling.'),
  repeat_penalty: number.describe('Divides the logits of tokens that were used before.'),
  frequency_penalty: number.describe('Lowers the logit of a token with each use.'),
  presence_penalty: number.describe('Lowers the logits of tokens that were used before.'),
  logit_bias: z
    .record(z.string(), z.number())
    .nullish()
    .describe('Adds a number to the logit of each token id. -100 forbids the token.'),
};

type SamplingFields = z.output<z.ZodObject<typeof SAMPLING_FIELDS>>;

/** The sampling options of a body. The body of a dialect with fewer options has only some of the fields. */
export function samplingOf(body: SamplingFields): SamplingOptions {
  const bias = Object.entries(body.logit_bias ?? {}).map(([token, value]) => [
    token,
    value <= -100 ? Number.NEGATIVE_INFINITY : value,
  ]);
  const sampling: Record<string, number | object | null | undefined> = {
    temperature: body.temperature,
    topP: body.top_p,
    topK: body.top_k,
    minP: body.min_p,
    typicalP: body.typical_p,
    repeatPenalty: body.repeat_penalty,
    frequencyPenalty: body.frequency_penalty,
    presencePenalty: body.presence_penalty,
    seed: body.seed === null || body.seed === undefined || body.seed < 0 ? undefined : body.seed % (2 ** 32 - 1),
    logitBias: bias.length > 0 ? Object.fromEntries(bias) : undefined,
  };
  return Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== null && value !== undefined));
}

/** The request of one choice. If the request has a seed, each choice gets a seed of its own. */
export function withSeedOf<Request extends { sampling?: { seed?: number | undefined } | undefined }>(
  request: Request,
  choice: number,
): Request {
  const { sampling } = request;
  return sampling?.seed === undefined || choice === 0
    ? request
    : { ...request, sampling: { ...sampling, seed: (sampling.seed + choice) % (2 ** 32 - 1) } };
}
