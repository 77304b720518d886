// The fields that the bodies of several endpoints have in common.
import { z } from 'zod';

export const MODEL = z.string().nullish().describe('Any name, because the server has one model.');

export const STREAM = z.boolean().nullish().describe('Whether to return the reply as a stream of events.');

export const RETURN_PROGRESS = z
  .boolean()
  .nullish()
  .describe('Whether the stream has `prompt_progress` while the prompt is read, as in llama-server.');

/** The fields of chat completions and completions for streams. */
export const STREAM_FIELDS = {
  stream: STREAM,
  stream_options: z
    .object({ include_usage: z.boolean().nullish().describe('Whether the last chunk has the usage.') })
    .nullish(),
  return_progress: RETURN_PROGRESS,
};

export const STOP = z
  .union([z.string(), z.array(z.string())])
  .nullish()
  .describe('Texts in front of which the reply ends.');

export const CHOICES = z.int().min(1).max(16).nullish();
