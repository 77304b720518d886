// The endpoints of Anthropic's API, for the OpenAPI document.
import { z } from 'zod';
import { type OperationGroup, requestSchema, responseSchema } from '../openapi/operation.js';
import { HEADSTART_REPORT } from '../openapi/shared-schemas.js';
import { MESSAGE_BODY } from './message-request.js';

responseSchema(
  'AnthropicError',
  z.strictObject({
    type: z.literal('error'),
    error: z.strictObject({
      type: z.string().describe('The kind of error, for example `invalid_request_error`.'),
      message: z.string().describe('The cause, and what to do.'),
    }),
  }),
);

const MESSAGE = responseSchema(
  'Message',
  z.strictObject({
    id: z.string(),
    type: z.literal('message'),
    role: z.literal('assistant'),
    model: z.string().describe('The name of the model, whatever name the request had.'),
    content: z.array(
      z.looseObject({
        type: z.string().describe('`thinking`, `text`, `tool_use`, `server_tool_use`, or the result of a server tool.'),
        thinking: z.string().optional(),
        signature: z.string().optional(),
        text: z.string().optional(),
        id: z.string().optional().describe('The id of a call.'),
        name: z.string().optional().describe('The name of the called tool.'),
        input: z.looseObject({}).optional().describe('The arguments of a call.'),
      }),
    ),
    stop_reason: z
      .enum(['end_turn', 'max_tokens', 'tool_use', 'stop_sequence', 'pause_turn'])
      .describe('Why the reply ended.'),
    stop_sequence: z.string().nullable().describe('The stop sequence that ended the reply.'),
    usage: z.strictObject({
      input_tokens: z.int().describe('Prompt tokens that were prefilled, if the request has no `cache_control`.'),
      cache_creation_input_tokens: z
        .int()
        .describe('Prompt tokens that were prefilled, if the request has `cache_control`.'),
      cache_read_input_tokens: z.int().describe('Prompt tokens that were reused.'),
      output_tokens: z.int().describe('Generated tokens, with reasoning.'),
    }),
    headstart: HEADSTART_REPORT,
  }),
);

const EVENT = responseSchema(
  'MessageEvent',
  z.looseObject({
    type: z.enum([
      'message_start',
      'ping',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
      'error',
    ]),
    headstart: HEADSTART_REPORT.optional().describe('In `message_delta`.'),
  }),
);

const TOKEN_COUNT = responseSchema('TokenCount', z.strictObject({ input_tokens: z.int() }));

const body = requestSchema('MessageRequest', MESSAGE_BODY);

export const ANTHROPIC: OperationGroup = {
  name: "Anthropic's API",
  description: 'The API that Claude Code uses.',
  operations: [
    {
      method: 'post',
      path: '/v1/messages',
      summary: 'Answers a conversation.',
      body,
      response: MESSAGE,
      events: EVENT,
    },
    {
      method: 'post',
      path: '/v1/messages/count_tokens',
      summary: 'Counts the tokens of the prompt, without waiting for other requests.',
      body,
      response: TOKEN_COUNT,
    },
  ],
};
