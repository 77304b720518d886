// Reads the sampling options of OpenAI's API, and the options that llama-server adds. The fields that Anthropic's API has
// too have the same names and meanings.
import { z } from 'zod';
import type { SamplingOptions } from '../../sampling-options.js';

const number = z.number().nullish();
const integer = z.int().nullish();

export const SAMPLING_FIELDS = {
  seed: integer,
  temperature: number,
  top_p: number,
  top_k: integer,
  min_p: number,
  typical_p: number,
  repeat_penalty: number,
  frequency_penalty: number,
  presence_penalty: number,
  logit_bias: z.record(z.string(), z.number()).nullish(),
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
