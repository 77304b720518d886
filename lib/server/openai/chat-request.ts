// Reads the bodies of OpenAI's chat completions.
import { z } from 'zod';
import type { ChatRequest } from '../../chat/chat.js';
import type { RequestMessage } from '../../chat/message-input.js';
import type { Tool, ToolChoice } from '../../tools/tool.js';
import { checkedBody } from '../http/checked-body.js';
import { dialectRequest } from '../http/dialect-request.js';
import { CHOICES, MODEL, STOP, STREAM_FIELDS } from './common-fields.js';
import { formatSchema } from './response-format.js';
import { SAMPLING_FIELDS, samplingOf } from './sampling.js';

const jsonObject = z.looseObject({});
const integer = z.int().nullish();

const FUNCTION_TOOL = z.object({
  type: z.literal('function'),
  function: z.object({
    name: z.string(),
    description: z.string().nullish(),
    parameters: jsonObject.nullish(),
  }),
});

export const CHAT_BODY = z.object({
  messages: z
    .array(z.looseObject({ role: z.string().describe('`system`, `developer`, `user`, `assistant` or `tool`.') }))
    .min(1)
    .describe('The whole conversation. An earlier reply may have its `reasoning_content`.'),
  model: MODEL,
  ...STREAM_FIELDS,
  tools: z
    .array(z.looseObject({ type: z.string() }))
    .nullish()
    .describe('The functions that the model may call. Tools of other types are left out.'),
  tool_choice: z
    .union([z.string(), jsonObject])
    .nullish()
    .describe('`auto`, `none`, `required`, or the function that the model must call.'),
  parallel_tool_calls: z.boolean().nullish().describe('Whether a reply may have several calls.'),
  response_format: z
    .looseObject({ type: z.string() })
    .nullish()
    .describe('`text`, `json_object`, or `json_schema` with the JSON Schema of the reply.'),
  stop: STOP,
  max_tokens: integer.describe('Maximum tokens of the reply. A number beyond the context has no effect.'),
  max_completion_tokens: integer.describe('The new name of `max_tokens`.'),
  n: CHOICES.describe('Number of replies.'),
  ...SAMPLING_FIELDS,
  logprobs: z.boolean().nullish().describe('Whether to return the log-probabilities of the tokens.'),
  top_logprobs: z.int().min(0).max(20).nullish().describe('Number of most likely tokens for each token.'),
  reasoning_effort: z.string().nullish().describe('`none` turns reasoning off. Other values have no effect.'),
  chat_template_kwargs: jsonObject.nullish().describe('`enable_thinking: false` turns reasoning off.'),
  prompt_cache_key: z.string().nullish().describe("The client's name for the conversation."),
});

export type ChatCompletionBody = z.output<typeof CHAT_BODY>;

/** @throws HttpError 400. */
export function readChatBody(body: unknown): ChatCompletionBody {
  return checkedBody(CHAT_BODY, body);
}

/** The request that a body asks for. */
export function chatRequestOf(body: ChatCompletionBody): ChatRequest {
  return dialectRequest({
    messages: body.messages as readonly RequestMessage[],
    tools: toolsOf(body.tools ?? []),
    toolChoice: toolChoiceOf(body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls,
    schema: schemaOf(body),
    stop: body.stop,
    maxTokens: body.max_completion_tokens ?? body.max_tokens,
    ...(body.logprobs && { logProbabilities: body.top_logprobs ?? 0 }),
    affinity: body.prompt_cache_key,
    sampling: samplingOf(body),
    reasoning: wantsReasoning(body),
  });
}

/** The tools that the model can call. Hosted tools, which this server does not have, are left out. */
export function toolsOf(tools: readonly object[]): Tool[] {
  return tools.flatMap((tool) => {
    const { success, data } = FUNCTION_TOOL.safeParse(tool);
    if (!success) {
      return [];
    }
    const { name, description, parameters } = data.function;
    return [{ name, ...(description && { description }), ...(parameters && { inputSchema: parameters }) }];
  });
}

function toolChoiceOf(choice: ChatCompletionBody['tool_choice']): ToolChoice {
  if (typeof choice === 'string') {
    return choice === 'required' || choice === 'none' ? choice : 'auto';
  }
  const { name } = ((choice as { function?: object } | null | undefined)?.function ?? {}) as { name?: unknown };
  return typeof name === 'string' ? { name } : 'auto';
}

function schemaOf({ response_format: format }: ChatCompletionBody): object | undefined {
  const { schema } = (format?.json_schema ?? {}) as { schema?: unknown };
  return formatSchema(format?.type, schema, 'response_format.json_schema.schema');
}

function wantsReasoning({ reasoning_effort: effort, chat_template_kwargs: options }: ChatCompletionBody): boolean {
  return effort !== 'none' && options?.enable_thinking !== false;
}
