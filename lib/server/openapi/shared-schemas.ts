// The objects that the responses of several APIs contain.
import { z } from 'zod';
import { responseSchema } from './operation.js';

export const PLACE_FIELDS = {
  index: z.int().describe('Position of a token in the prompt, counted from 0.'),
  part: z.enum(['system', 'tool', 'message', 'opening']).optional().describe('The part of the prompt with this token.'),
  message: z.int().optional().describe('The index of the message with this token.'),
  tool: z.string().optional().describe('The name of the tool with this token.'),
  text: z.string().describe('The text of a few tokens, beginning with this token.'),
};

export const PLACE = responseSchema('PromptPlace', z.strictObject(PLACE_FIELDS));

const SOURCE = z.enum(['resident', 'memory', 'disk', 'prefill']);

/** What a prompt reused, without the time and the place of the difference. */
export const REUSE = {
  source: SOURCE.describe('The place that held the reused tokens. The value is `prefill` if no token was reused.'),
  cachedTokens: z.int().describe('Prompt tokens that were reused.'),
  prefilledTokens: z.int().describe('Prompt tokens that were prefilled.'),
  reason: z.string().optional().describe('Why no more tokens were reused.'),
};

export const CACHE_REPORT = responseSchema(
  'CacheReport',
  z.strictObject({
    ...REUSE,
    ms: z.number().describe('Milliseconds until the prompt was decoded, with the wait for a sequence.'),
    difference: PLACE.optional().describe('Where the prompt differs from the nearest stored prefix.'),
  }),
);

/** The statements of this server about a reply. */
export const HEADSTART_REPORT = responseSchema(
  'HeadstartReport',
  z.strictObject({
    cache: CACHE_REPORT.optional().describe('What the prompt reused, and why not more.'),
    rules: z.array(z.string()).optional().describe('The rules for known clients that changed the request.'),
    warnings: z.array(z.string()).optional().describe('What the model does not see of the request.'),
  }),
);

export const TIMINGS = responseSchema(
  'Timings',
  z.strictObject({
    cache_n: z.int().describe('Prompt tokens that were reused.'),
    prompt_n: z.int().describe('Prompt tokens that were prefilled.'),
    prompt_ms: z.number().describe('Milliseconds until the prompt was decoded, with the wait for a sequence.'),
    prompt_per_token_ms: z.number().describe('Milliseconds for each prefilled token.'),
    prompt_per_second: z.number().describe('Prefilled tokens per second.'),
    predicted_n: z.int().describe('Generated tokens.'),
    predicted_ms: z.number().describe('Milliseconds for the generated tokens.'),
    predicted_per_token_ms: z.number().describe('Milliseconds for each generated token.'),
    predicted_per_second: z.number().describe('Generated tokens per second.'),
  }),
);

export const PROMPT_PROGRESS = responseSchema(
  'PromptProgress',
  z.strictObject({
    total: z.int().describe('Tokens of the prompt.'),
    cache: z.int().describe('Prompt tokens that were reused.'),
    processed: z.int().describe('Prompt tokens that are in the KV cache now, with the reused ones.'),
    time_ms: z.int().describe('Milliseconds since the prefill began.'),
  }),
);
