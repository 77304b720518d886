// What the tests of OpenAI's responses share.
import type OpenAI from 'openai';
import { ON } from './lamp.js';

type Response = OpenAI.Responses.Response;

export const lamp: OpenAI.Responses.FunctionTool = {
  type: 'function',
  name: 'set_lamp',
  parameters: ON,
  strict: false,
};

export const cachedTokens = ({ usage }: Response): number => usage?.input_tokens_details.cached_tokens ?? 0;

/** The tokens of a prompt and its reply. The last token of each is not in the KV cache yet, or its end is rendered anew. */
export const tokensAfter = ({ usage }: Response): number => (usage?.total_tokens ?? 0) - 8;

export const outputOf = ({ call_id }: { call_id: string }, output: string): OpenAI.Responses.ResponseInputItem => ({
  type: 'function_call_output',
  call_id,
  output,
});
