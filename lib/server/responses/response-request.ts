// Reads the bodies of OpenAI's responses: https://platform.openai.com/docs/api-reference/responses
import { z } from 'zod';
import type { ChatRequest } from '../../chat/chat.js';
import { checkedBody } from '../http/checked-body.js';
import { dialectRequest } from '../http/dialect-request.js';
import { HttpError } from '../http/http-error.js';
import { MODEL, RETURN_PROGRESS, STREAM } from '../openai/common-fields.js';
import { formatSchema } from '../openai/response-format.js';
import { SAMPLING_FIELDS, samplingOf } from '../openai/sampling.js';
import { type Item, messagesOf } from './items.js';
import { ResponseTools } from './response-tools.js';

const jsonObject = z.looseObject({});

export const RESPONSE_BODY = z.object({
  input: z
    .union([z.string(), z.array(jsonObject)])
    .nullish()
    .describe('A message of the user, or the items of the conversation.'),
  instructions: z.string().nullish().describe('The system prompt.'),
  model: MODEL,
  previous_response_id: z.string().nullish().describe('The stored response that the input continues.'),
  conversation: z
    .union([z.string(), jsonObject])
    .nullish()
    .describe('Refused, because the server keeps no conversations.'),
  store: z.boolean().nullish().describe('Whether to store the response, true by default.'),
  stream: STREAM,
  return_progress: RETURN_PROGRESS,
  include: z
    .array(z.string())
    .nullish()
    .describe('`reasoning.encrypted_content` adds this field to reasoning. Other values have no effect.'),
  tools: z
    .array(jsonObject)
    .nullish()
    .describe('Tools of the types `function`, `custom` and `namespace`. Tools of other types are left out.'),
  tool_choice: z
    .union([z.string(), jsonObject])
    .nullish()
    .describe('`auto`, `none`, `required`, or the tool that the model must call.'),
  parallel_tool_calls: z.boolean().nullish().describe('Whether a reply may have several calls.'),
  text: z
    .looseObject({
      format: z
        .looseObject({ type: z.string() })
        .nullish()
        .describe('`text`, `json_object`, or `json_schema` with the JSON Schema of the reply.'),
    })
    .nullish(),
  reasoning: z
    .looseObject({ effort: z.string().nullish().describe('`none` turns reasoning off. Other values have no effect.') })
    .nullish(),
  max_output_tokens: z.int().nullish().describe('Maximum tokens of the reply, with reasoning.'),
  temperature: SAMPLING_FIELDS.temperature,
  top_p: SAMPLING_FIELDS.top_p,
  metadata: jsonObject.nullish().describe('Returned in the response.'),
  prompt_cache_key: z.string().nullish().describe("The client's name for the conversation."),
});

export type ResponseBody = z.output<typeof RESPONSE_BODY>;

/** @throws HttpError 400. */
export function readResponseBody(input: unknown): ResponseBody {
  const body = checkedBody(RESPONSE_BODY, input);
  if (body.conversation) {
    const remedy = 'leave out `conversation`, and pass `previous_response_id` or the whole conversation as `input`';
    throw new HttpError(400, 'unsupported_parameter', `This server keeps no conversations: ${remedy}`);
  }
  return body;
}

/** The items of a body's input. */
export function inputItemsOf({ input }: ResponseBody): Item[] {
  return typeof input === 'string' ? [{ type: 'message', role: 'user', content: input }] : (input ?? []);
}

/** Whether a client only wants the model to be loaded: `codex --oss` sends such a request when it starts. */
export function isLoadProbe(body: ResponseBody): boolean {
  return body.input === '' && body.max_output_tokens === 1;
}

/** A request, and what its response needs. */
export interface ReadResponseRequest {
  request: ChatRequest;
  tools: ResponseTools;
  /** Sentences for the response about parts of the request that the model does not see. */
  warnings: readonly string[];
}

/**
 * The request that a body asks for.
 *
 * @param items the whole conversation: the items of earlier responses and of the body
 * @throws HttpError 400.
 */
export function responseRequestOf(body: ResponseBody, items: readonly Item[]): ReadResponseRequest {
  const { instructions } = body;
  const format = body.text?.format;
  const tools = new ResponseTools([...(body.tools ?? []), ...items.flatMap(toolsOf)]);
  const { messages, warnings } = messagesOf(items, tools);
  const request = dialectRequest({
    messages: [...(instructions ? [{ role: 'system' as const, content: instructions }] : []), ...messages],
    tools: tools.all,
    toolChoice: tools.choiceOf(body.tool_choice),
    parallelToolCalls: body.parallel_tool_calls,
    schema: formatSchema(format?.type, format?.schema, 'text.format.schema'),
    maxTokens: body.max_output_tokens,
    affinity: body.prompt_cache_key,
    sampling: samplingOf(body),
    reasoning: body.reasoning?.effort !== 'none',
  });
  return { request, tools, warnings: [...tools.warnings, ...warnings] };
}

/** The tools in an input item. The newest models of Codex have their tools there. */
function toolsOf({ type, tools }: Item): Item[] {
  return type === 'additional_tools' && Array.isArray(tools) ? tools : [];
}
