// The fields that the bodies of chat completions and completions have in common.
import { z } from 'zod';

export const STREAM_FIELDS = {
  stream: z.boolean().nullish().describe('Whether to return the reply as a stream of events.'),
  stream_options: z
    .object({ include_usage: z.boolean().nullish().describe('Whether the last chunk has the usage.') })
    .nullish(),
  return_progress: z
    .boolean()
    .nullish()
    .describe('Whether the stream has `prompt_progress` while the prompt is read, as in llama-server.'),
};

export const STOP = z
  .union([z.string(), z.array(z.string())])
  .nullish()
  .describe('Texts in front of which the reply ends.');

export const CHOICES = z.int().min(1).max(16).nullish();
