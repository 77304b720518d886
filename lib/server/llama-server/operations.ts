// The endpoints of llama-server, for the OpenAPI document.
import { z } from 'zod';
import { CHAT_BODY } from '../openai/chat-request.js';
import { type OperationGroup, requestSchema, responseSchema } from '../openapi/operation.js';
import { DETOKENIZE, TOKENIZE } from './tokens.js';

const HEALTH = responseSchema('Health', z.strictObject({ status: z.literal('ok') }));

const PROPERTIES = responseSchema(
  'Properties',
  z.strictObject({
    default_generation_settings: z.strictObject({
      n_ctx: z.int().describe('Maximum tokens of a conversation.'),
      params: z.strictObject({}),
    }),
    total_slots: z.int().describe('Number of sequences.'),
    model_alias: z.string().describe('The name of the model.'),
    model_ftype: z.string().describe('The quantization.'),
    modalities: z.strictObject({ vision: z.literal(false), video: z.literal(false), audio: z.literal(false) }),
    endpoint_slots: z.literal(false),
    endpoint_props: z.literal(false),
    endpoint_metrics: z.literal(true),
    chat_template: z.string().describe('The chat template (Jinja).'),
    bos_token: z.string(),
    eos_token: z.string(),
    build_info: z.string().describe('The versions of this package and of llama.cpp.'),
    is_sleeping: z.literal(false),
  }),
);

const TOKENS = responseSchema(
  'Tokens',
  z.strictObject({
    tokens: z.array(
      z.union([
        z.int(),
        z.strictObject({
          id: z.int(),
          piece: z.union([z.string(), z.array(z.int())]).describe('The text, or the bytes of a part of a character.'),
        }),
      ]),
    ),
  }),
);

const TEXT = responseSchema('Text', z.strictObject({ content: z.string() }));
const PROMPT = responseSchema('Prompt', z.strictObject({ prompt: z.string() }));

const health = {
  method: 'get',
  summary: 'Says whether the server is running.',
  access: 'everyone',
  response: HEALTH,
  refusals: [503],
} as const;

export const LLAMA_SERVER: OperationGroup = {
  name: 'Endpoints of llama-server',
  description: 'For programs that were made for llama-server.',
  operations: [
    { ...health, path: '/health' },
    { ...health, path: '/v1/health' },
    {
      method: 'get',
      path: '/props',
      summary: 'Describes the model and the server.',
      response: PROPERTIES,
      refusals: [501],
    },
    {
      method: 'post',
      path: '/tokenize',
      summary: 'Converts text to tokens.',
      body: requestSchema('TokenizeRequest', TOKENIZE),
      response: TOKENS,
      refusals: [501],
    },
    {
      method: 'post',
      path: '/detokenize',
      summary: 'Converts tokens to text.',
      body: requestSchema('DetokenizeRequest', DETOKENIZE),
      response: TEXT,
      refusals: [501],
    },
    {
      method: 'post',
      path: '/apply-template',
      summary: 'Renders the prompt of a chat completion.',
      body: CHAT_BODY,
      response: PROMPT,
      refusals: [501],
    },
    { method: 'get', path: '/metrics', summary: 'Returns metrics in the text format of Prometheus.' },
  ],
};
