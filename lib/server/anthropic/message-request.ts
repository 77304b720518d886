// Reads the bodies of Anthropic's messages: https://docs.anthropic.com/en/api/messages
import { z } from 'zod';
import type { CacheHint } from '../../chat/cache-hints.js';
import type { ChatRequest } from '../../chat/chat.js';
import type { ContentPart, RequestMessage } from '../../chat/message-input.js';
import type { Tool, ToolChoice } from '../../tools/tool.js';
import { checkedBody } from '../http/checked-body.js';
import { dialectRequest } from '../http/dialect-request.js';
import { MODEL, STREAM } from '../openai/common-fields.js';
import { SAMPLING_FIELDS, samplingOf } from '../openai/sampling.js';
import { isServerResult, ownCallId, resultText, serverTool, serverToolKind } from './server-tools.js';

const block = z.looseObject({ type: z.string(), cache_control: z.looseObject({}).nullish() });
const content = z.union([z.string(), z.array(block)]);

const TOOL = z.looseObject({
  name: z.string(),
  type: z.string().nullish(),
  description: z.string().nullish(),
  input_schema: z.looseObject({}).nullish(),
  defer_loading: z.boolean().nullish(),
  cache_control: z.looseObject({}).nullish(),
});

export const MESSAGE_BODY = z.object({
  messages: z
    .array(
      z.looseObject({
        role: z.string().describe('`user`, `assistant` or `system`. Any other role counts as the user.'),
        content: content.nullish().describe('A text, or blocks of content.'),
      }),
    )
    .min(1)
    .describe('The whole conversation.'),
  model: MODEL,
  system: content.nullish().describe('The system prompt: a text, or blocks of text.'),
  stream: STREAM,
  tools: z
    .array(z.looseObject({ name: z.string().nullish() }))
    .nullish()
    .describe('The tools that the model may call. Calls of web search, web fetch and code execution fail.'),
  tool_choice: z
    .looseObject({
      type: z.string().describe('`auto`, `any`, `tool` or `none`.'),
      name: z.string().nullish().describe('The tool that the model must call.'),
      disable_parallel_tool_use: z.boolean().nullish().describe('Whether a reply has at most one call.'),
    })
    .nullish(),
  max_tokens: z.int().nullish().describe('Maximum tokens of the reply. A number beyond the context has no effect.'),
  stop_sequences: z.array(z.string()).nullish().describe('Texts in front of which the reply ends.'),
  temperature: SAMPLING_FIELDS.temperature,
  top_p: SAMPLING_FIELDS.top_p,
  top_k: SAMPLING_FIELDS.top_k,
  thinking: z
    .looseObject({ type: z.string() })
    .nullish()
    .describe('Turns reasoning on, unless its type is `disabled`. Other fields have no effect.'),
  output_config: z
    .looseObject({
      format: z
        .looseObject({ type: z.string(), schema: z.looseObject({}).nullish() })
        .nullish()
        .describe('`json_schema` with the JSON Schema of the reply.'),
    })
    .nullish(),
});

export type MessageBody = z.output<typeof MESSAGE_BODY>;
/** A block of content. */
export type Block = z.output<typeof block>;
type Content = string | readonly Block[] | null | undefined;

/** @throws HttpError 400. */
export function readMessageBody(body: unknown): MessageBody {
  return checkedBody(MESSAGE_BODY, body);
}

/** What a body asks for. */
export interface MessageRequest {
  request: ChatRequest;
  /** The kinds of the tools that this server answers itself, by their names. */
  serverTools: ReadonlyMap<string, string>;
}

export function messageRequestOf(body: MessageBody): MessageRequest {
  const { thinking, tool_choice: choice } = body;
  const format = body.output_config?.format;
  const tools = toolsOf(body);
  const { messages, hinted } = readConversation(systemOf(body.system), body.messages);
  const request = dialectRequest({
    messages,
    tools: tools.map(({ tool }) => tool),
    toolChoice: toolChoiceOf(choice),
    parallelToolCalls: choice?.disable_parallel_tool_use ? false : undefined,
    schema: format?.type === 'json_schema' ? format.schema : undefined,
    stop: body.stop_sequences,
    maxTokens: body.max_tokens,
    cacheHints: hintsOf(body, tools, hinted),
    sampling: samplingOf(body),
    reasoning: thinking !== null && thinking !== undefined && thinking.type !== 'disabled',
  });
  const kinds = tools.flatMap(({ tool, kind }): [string, string][] => (kind === undefined ? [] : [[tool.name, kind]]));
  return { request, serverTools: new Map(kinds) };
}

/** Anthropic's API accepts four places. A request with more is not refused: the last eight count. */
const MAX_HINTS = 8;

function hintsOf(body: MessageBody, tools: readonly ReadTool[], messages: readonly number[]): CacheHint[] {
  const hints: CacheHint[] = tools.flatMap(({ isHinted }, tool) => (isHinted ? [{ tool }] : []));
  if (isHinted(body.system)) {
    hints.push({ system: true });
  }
  return [...hints, ...messages.map((message) => ({ message }))].slice(-MAX_HINTS);
}

function isHinted(content: Content): boolean {
  return Array.isArray(content) && content.some((each: Block) => Boolean(each.cache_control));
}

interface ReadTool {
  tool: Tool;
  isHinted: boolean;
  /** The kind of a tool that Anthropic's servers would run; undefined for other tools. */
  kind: string | undefined;
}

/** The tools that the model may call. Unknown tools of Anthropic's are left out. */
function toolsOf({ tools }: MessageBody): ReadTool[] {
  return (tools ?? []).flatMap((input): ReadTool[] => {
    const { data } = TOOL.safeParse(input);
    const kind = serverToolKind(data?.type ?? '');
    if (data === undefined || (kind === undefined && data.type && data.type !== 'custom')) {
      return [];
    }
    const tool = kind === undefined ? clientTool(data) : serverTool(kind, data.name);
    return [{ tool, isHinted: Boolean(data.cache_control), kind }];
  });
}

function clientTool({
  name,
  description,
  input_schema: inputSchema,
  defer_loading: deferred,
}: z.output<typeof TOOL>): Tool {
  return {
    name,
    ...(description && { description }),
    ...(inputSchema && { inputSchema }),
    ...(deferred && { deferred }),
  };
}

function toolChoiceOf(choice: MessageBody['tool_choice']): ToolChoice {
  switch (choice?.type) {
    case 'any':
      return 'required';
    case 'none':
      return 'none';
    case 'tool':
      return choice.name ? { name: choice.name } : 'required';
    default:
      return 'auto';
  }
}

function systemOf(system: Content): string {
  return blocksOf(system)
    .map(textOf)
    .filter((text) => text !== '')
    .join('\n\n');
}

/** The blocks of a content. A text counts as one block. */
export function blocksOf(content: Content): readonly Block[] {
  return typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? []);
}

function textOf(block: { type: string; text?: unknown }): string {
  return block.type === 'text' && typeof block.text === 'string' ? block.text : '';
}

/** Converts messages. @returns the messages, and the indices of those with cache hints */
function readConversation(
  system: string,
  input: MessageBody['messages'],
): { messages: RequestMessage[]; hinted: number[] } {
  const messages: RequestMessage[] = system === '' ? [] : [{ role: 'system', content: system }];
  const hinted: number[] = [];
  for (const { role, content } of input) {
    const blocks = blocksOf(content);
    messages.push(
      ...(role === 'assistant'
        ? messagesOf(blocks, serverResultOf, replyOf)
        : messagesOf(blocks, clientResultOf, (others) => requestOf(role, others))),
    );
    if (isHinted(content)) {
      hinted.push(messages.length - 1);
    }
  }
  return { messages, hinted };
}

/**
 * Converts the blocks of a message into a message for each result of a tool, and a message for each run of other blocks.
 *
 * @param resultOf returns undefined for other blocks
 */
function messagesOf(
  blocks: readonly Block[],
  resultOf: (block: Block) => RequestMessage | undefined,
  messageOf: (blocks: readonly Block[]) => RequestMessage,
): RequestMessage[] {
  const messages: RequestMessage[] = [];
  let others: Block[] = [];
  const flush = () => {
    if (others.length > 0) {
      messages.push(messageOf(others));
      others = [];
    }
  };
  for (const each of blocks) {
    const result = resultOf(each);
    if (result === undefined) {
      others.push(each);
    } else {
      flush();
      messages.push(result);
    }
  }
  flush();
  return messages.length > 0 ? messages : [messageOf([])];
}

function requestOf(role: string, blocks: readonly Block[]): RequestMessage {
  return { role: role === 'system' || role === 'developer' ? role : 'user', content: blocks.map(partOf) };
}

function replyOf(blocks: readonly Block[]): RequestMessage {
  const reasoning = blocks.map((each) => (each.type === 'thinking' ? String(each.thinking ?? '') : '')).join('');
  const toolCalls = blocks
    .filter(({ type }) => type === 'tool_use' || type === 'server_tool_use')
    .map(({ id, name, input }) => ({ toolCallId: ownCallId(id), toolName: name, input: input ?? {} }));
  return {
    role: 'assistant',
    content: blocks.map(textOf).join(''),
    ...(reasoning !== '' && { reasoning }),
    ...(toolCalls.length > 0 && { toolCalls }),
  };
}

/** The message of a block in a reply, if a server ran the tool. */
function serverResultOf(block: Block): RequestMessage | undefined {
  return isServerResult(block)
    ? { role: 'tool', tool_call_id: ownCallId(block.tool_use_id), content: resultText(block.content) }
    : undefined;
}

/** The message of a block of the user, if the client ran the tool. */
function clientResultOf(block: Block): RequestMessage | undefined {
  return block.type === 'tool_result'
    ? { role: 'tool', tool_call_id: block.tool_use_id, content: resultOf(block.content) }
    : undefined;
}

function resultOf(content: unknown): string | ContentPart[] {
  if (Array.isArray(content)) {
    return content.filter((each) => typeof each === 'object' && each !== null).map(partOf);
  }
  return typeof content === 'string' ? content : '';
}

function partOf(block: Block): ContentPart {
  const { cache_control: _, ...part } = block;
  return part.type === 'tool_reference' ? { type: 'tool-reference', toolName: part.tool_name } : part;
}
