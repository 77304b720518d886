// The endpoints of OpenAI's API, for the OpenAPI document.
import { z } from 'zod';
import { type OperationGroup, requestSchema, responseSchema } from '../openapi/operation.js';
import { HEADSTART_REPORT, PROMPT_PROGRESS, TIMINGS } from '../openapi/shared-schemas.js';
import { CHAT_BODY } from './chat-request.js';
import { COMPLETION_BODY } from './completions.js';

responseSchema(
  'OpenAiError',
  z.strictObject({
    error: z.strictObject({
      message: z.string().describe('The cause, and what to do.'),
      type: z.string().describe('The kind of error, for example `invalid_request_error`.'),
      param: z.null(),
      code: z.string().describe('A name for programs, for example `context_length_exceeded`.'),
    }),
  }),
);

const USAGE = responseSchema(
  'Usage',
  z.strictObject({
    prompt_tokens: z
      .int()
      .describe('Tokens of the prompt, with the reused ones. A prompt counts once for all choices.'),
    completion_tokens: z.int().describe('Generated tokens of all choices, with reasoning.'),
    total_tokens: z.int().describe('The sum of both.'),
    prompt_tokens_details: z.strictObject({ cached_tokens: z.int().describe('Prompt tokens that were reused.') }),
    completion_tokens_details: z.strictObject({ reasoning_tokens: z.int().describe('Generated tokens of reasoning.') }),
  }),
);

const ENVELOPE = {
  id: z.string().describe('The id of the response.'),
  created: z.int().describe('When the response began, in seconds since 1970.'),
  model: z.string().describe('The name of the model, whatever name the request had.'),
};

const ENDING = {
  usage: USAGE,
  timings: TIMINGS.describe('The times of the first choice.'),
  headstart: HEADSTART_REPORT.describe('What the first choice reused.'),
};

const FINISH_REASON = z.enum(['stop', 'length', 'tool_calls']).describe('Why the reply ended.');

const likely = {
  token: z.string(),
  logprob: z.number().describe('The natural logarithm of the probability.'),
  bytes: z.array(z.int()).describe('The bytes of the token in UTF-8.'),
};

const LOGPROBS = responseSchema(
  'LogProbabilities',
  z.strictObject({
    content: z.array(z.strictObject({ ...likely, top_logprobs: z.array(z.strictObject(likely)) })),
  }),
);

const TOOL_CALL = z.strictObject({
  id: z.string(),
  type: z.literal('function'),
  function: z.strictObject({ name: z.string(), arguments: z.string().describe('The arguments as JSON text.') }),
});

const CHAT_COMPLETION = responseSchema(
  'ChatCompletion',
  z.strictObject({
    ...ENVELOPE,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.strictObject({
        index: z.int(),
        message: z.strictObject({
          role: z.literal('assistant'),
          content: z.string().nullable().describe('The text; null if the reply only has calls.'),
          refusal: z.null(),
          reasoning_content: z.string().optional().describe("The model's reasoning."),
          tool_calls: z.array(TOOL_CALL).optional().describe('The calls that the client has to answer.'),
        }),
        logprobs: LOGPROBS.nullable(),
        finish_reason: FINISH_REASON,
      }),
    ),
    ...ENDING,
  }),
);

const CHUNK_CALL = z.strictObject({
  index: z.int(),
  id: z.string().optional(),
  type: z.literal('function').optional(),
  function: z.strictObject({ name: z.string().optional(), arguments: z.string() }),
});

const CHAT_COMPLETION_CHUNK = responseSchema(
  'ChatCompletionChunk',
  z.strictObject({
    ...ENVELOPE,
    object: z.literal('chat.completion.chunk'),
    choices: z.array(
      z.strictObject({
        index: z.int(),
        delta: z.strictObject({
          role: z.literal('assistant').optional(),
          content: z
            .string()
            .optional()
            .describe('The next piece of text. Empty in chunks that keep the connection open.'),
          reasoning_content: z.string().optional().describe('The next piece of reasoning.'),
          tool_calls: z.array(CHUNK_CALL).optional().describe('The next pieces of calls.'),
        }),
        logprobs: LOGPROBS.nullable().describe(
          'In the last chunk of a choice: the log-probabilities of all its tokens.',
        ),
        finish_reason: FINISH_REASON.nullable(),
      }),
    ),
    prompt_progress: PROMPT_PROGRESS.optional().describe('With `return_progress`, while the prompt is read.'),
    timings: TIMINGS.optional().describe('In the last chunk of a choice, and in the chunk with the usage.'),
    usage: USAGE.optional().describe('With `stream_options.include_usage`, in the last chunk.'),
    headstart: HEADSTART_REPORT.optional().describe('In the chunk with the usage.'),
  }),
);

const TEXT_CHOICE = z.strictObject({
  index: z.int(),
  text: z.string(),
  logprobs: z
    .strictObject({
      tokens: z.array(z.string()),
      token_logprobs: z.array(z.number()),
      top_logprobs: z.array(z.record(z.string(), z.number())),
      text_offset: z.array(z.int()).describe('Where each token begins in the text.'),
    })
    .nullable(),
  finish_reason: FINISH_REASON.nullable(),
});

const COMPLETION_ENVELOPE = { ...ENVELOPE, object: z.literal('text_completion'), choices: z.array(TEXT_CHOICE) };

const COMPLETION = responseSchema('Completion', z.strictObject({ ...COMPLETION_ENVELOPE, ...ENDING }));

const COMPLETION_CHUNK = responseSchema(
  'CompletionChunk',
  z.strictObject({
    ...COMPLETION_ENVELOPE,
    prompt_progress: PROMPT_PROGRESS.optional().describe('With `return_progress`, while the prompt is read.'),
    timings: TIMINGS.optional(),
    usage: USAGE.optional().describe('With `stream_options.include_usage`, in the last chunk.'),
    headstart: HEADSTART_REPORT.optional(),
  }),
);

const MODEL = responseSchema(
  'Model',
  z.strictObject({
    id: z.string(),
    object: z.literal('model'),
    created: z.int().describe('When the server began, in seconds since 1970.'),
    owned_by: z.literal('llama-headstart'),
    meta: z
      .strictObject({
        vocab_type: z.int(),
        n_vocab: z.int().describe('Tokens of the vocabulary.'),
        n_ctx: z.int().optional().describe('Maximum tokens of a conversation.'),
        n_ctx_train: z.int().describe('The context size of the training, in tokens.'),
        n_embd: z.int(),
        n_params: z.int(),
        size: z.int().describe('Bytes of the weights.'),
        ftype: z.string().describe('The quantization.'),
      })
      .optional()
      .describe("llama-server's numbers."),
    type: z.literal('model'),
    display_name: z.string(),
    created_at: z.string().describe('The same time as `created`, as ISO 8601.'),
  }),
);

const MODEL_LIST = responseSchema(
  'ModelList',
  z.strictObject({
    object: z.literal('list'),
    data: z.array(MODEL),
    has_more: z.literal(false),
    first_id: z.string(),
    last_id: z.string(),
  }),
);

export const OPENAI: OperationGroup = {
  name: "OpenAI's API",
  description: 'Chat completions, completions and models.',
  operations: [
    {
      method: 'post',
      path: '/v1/chat/completions',
      summary: 'Answers a conversation.',
      body: requestSchema('ChatCompletionRequest', CHAT_BODY),
      response: CHAT_COMPLETION,
      events: CHAT_COMPLETION_CHUNK,
    },
    {
      method: 'post',
      path: '/v1/completions',
      summary: 'Continues a text, without a chat template.',
      description:
        'Text such as `<|im_start|>` in the prompt becomes a control token, unless `parse_special` is false.',
      body: requestSchema('CompletionRequest', COMPLETION_BODY),
      response: COMPLETION,
      events: COMPLETION_CHUNK,
      refusals: [501],
    },
    { method: 'get', path: '/v1/models', summary: 'Lists the only model.', response: MODEL_LIST },
    {
      method: 'get',
      path: '/v1/models/{name}',
      summary: 'Describes the model.',
      parameters: { name: 'Any name, because the server answers requests for any name with its one model.' },
      response: MODEL,
    },
  ],
};
