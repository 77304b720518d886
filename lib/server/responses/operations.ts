// The endpoints of OpenAI's responses, for the OpenAPI document.
import { z } from 'zod';
import { type OperationGroup, requestSchema, responseSchema } from '../openapi/operation.js';
import { HEADSTART_REPORT, PROMPT_PROGRESS } from '../openapi/shared-schemas.js';
import { RESPONSE_BODY } from './response-request.js';

const object = z.looseObject({});

const ITEM = responseSchema(
  'ResponseItem',
  z.looseObject({
    id: z.string(),
    type: z.enum(['message', 'reasoning', 'function_call', 'custom_tool_call']),
    status: z.enum(['in_progress', 'completed', 'incomplete']),
    role: z.literal('assistant').optional(),
    content: z.array(object).optional().describe('The parts of a message or of reasoning.'),
    summary: z.array(object).optional(),
    encrypted_content: z.string().optional().describe('The reasoning, for clients that send back only this field.'),
    call_id: z.string().optional(),
    name: z.string().optional().describe('The name of the called tool.'),
    namespace: z.string().optional().describe('The namespace of the called tool.'),
    arguments: z.string().optional().describe('The arguments of a function, as JSON text.'),
    input: z.string().optional().describe('The text for a custom tool.'),
  }),
);

const RESPONSE = responseSchema(
  'Response',
  z.strictObject({
    id: z.string(),
    object: z.literal('response'),
    created_at: z.int().describe('When the response began, in seconds since 1970.'),
    completed_at: z.int().nullable().optional(),
    status: z.enum(['in_progress', 'completed', 'incomplete', 'failed']),
    background: z.literal(false),
    error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
    incomplete_details: z.strictObject({ reason: z.literal('max_output_tokens') }).nullable(),
    instructions: z.string().nullable(),
    max_output_tokens: z.int().nullable(),
    metadata: object,
    model: z.string().describe('The name of the model, whatever name the request had.'),
    output: z.array(ITEM),
    parallel_tool_calls: z.boolean(),
    previous_response_id: z.string().nullable(),
    prompt_cache_key: z.string().nullable(),
    reasoning: object,
    store: z.boolean(),
    temperature: z.number().nullable(),
    text: object,
    tool_choice: z.union([z.string(), object]),
    tools: z.array(object),
    top_p: z.number().nullable(),
    truncation: z.literal('disabled'),
    usage: z
      .strictObject({
        input_tokens: z.int().describe('Tokens of the prompt, with the reused ones.'),
        input_tokens_details: z.strictObject({ cached_tokens: z.int().describe('Prompt tokens that were reused.') }),
        output_tokens: z.int().describe('Generated tokens, with reasoning.'),
        output_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
        total_tokens: z.int(),
      })
      .nullable(),
    headstart: HEADSTART_REPORT.optional(),
  }),
);

const EVENT = responseSchema(
  'ResponseEvent',
  z.looseObject({
    type: z.string().describe('The name of the event, for example `response.output_text.delta`.'),
    sequence_number: z.int().describe('The number of the event, counted from 0.'),
    response: RESPONSE.optional().describe('In events about the whole response, for example `response.completed`.'),
    prompt_progress: PROMPT_PROGRESS.optional().describe(
      'With `return_progress`, in `response.in_progress` while the prompt is read.',
    ),
  }),
);

const INPUT_TOKENS = responseSchema(
  'InputTokens',
  z.strictObject({ object: z.literal('response.input_tokens'), input_tokens: z.int() }),
);

const DELETED = responseSchema(
  'DeletedResponse',
  z.strictObject({ id: z.string(), object: z.literal('response'), deleted: z.literal(true) }),
);

const body = requestSchema('ResponseRequest', RESPONSE_BODY);
const parameters = { id: 'The id of a stored response of the same tenant.' };

export const OPENAI_RESPONSES: OperationGroup = {
  name: "OpenAI's responses",
  description: 'The API that Codex uses.',
  operations: [
    {
      method: 'post',
      path: '/v1/responses',
      summary: 'Answers a conversation, and stores the response unless `store` is false.',
      body,
      response: RESPONSE,
      events: EVENT,
      refusals: [404],
    },
    {
      method: 'post',
      path: '/v1/responses/input_tokens',
      summary: 'Counts the tokens of the prompt, without waiting for other requests.',
      body,
      response: INPUT_TOKENS,
      refusals: [404],
    },
    {
      method: 'get',
      path: '/v1/responses/{id}',
      summary: 'Returns a stored response.',
      parameters,
      response: RESPONSE,
      refusals: [404],
    },
    {
      method: 'delete',
      path: '/v1/responses/{id}',
      summary: 'Deletes a stored response.',
      parameters,
      response: DELETED,
      refusals: [404],
    },
  ],
};
