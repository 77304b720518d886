// The tools that Anthropic's servers run. This server runs none of them. So a call of such a tool gets the result that
// Anthropic's API returns while the tool is unavailable, and the model continues without the tool.
import { isObject } from '../../json.js';
import type { Tool } from '../../tools/tool.js';

interface ServerTool {
  description: string;
  /** The name of the tool's only argument, which is a text. */
  argument: string;
}

/** The known tools, by the part of their type in front of the date. */
const SERVER_TOOLS: Readonly<Record<string, ServerTool>> = {
  web_search: { description: 'Searches the web.', argument: 'query' },
  web_fetch: { description: 'Fetches a web page.', argument: 'url' },
  code_execution: { description: 'Runs code in a sandbox.', argument: 'code' },
};

const ID_PREFIX = 'srvtoolu_';
const UNAVAILABLE = 'This tool is unavailable';

/** The kind of a tool that Anthropic's servers run, for example `web_search`; undefined for other tools. */
export function serverToolKind(type: string): string | undefined {
  const [, kind = ''] = /^([a-z_]+)_\d{8}$/.exec(type) ?? [];
  return Object.hasOwn(SERVER_TOOLS, kind) ? kind : undefined;
}

/** The tool as the model sees it. */
export function serverTool(kind: string, name: string): Tool {
  const { description, argument } = SERVER_TOOLS[kind] as ServerTool;
  return {
    name,
    description,
    inputSchema: {
      type: 'object',
      properties: { [argument]: { type: 'string' } },
      required: [argument],
      additionalProperties: false,
    },
    execute: () => {
      throw new Error(UNAVAILABLE);
    },
  };
}

/** The client's id of a call. Clients distinguish calls of these tools by their ids. */
export function clientCallId(toolCallId: string): string {
  return ID_PREFIX + toolCallId;
}

/** The id of a call in the conversation of the model. */
export function ownCallId(id: unknown): unknown {
  return typeof id === 'string' && id.startsWith(ID_PREFIX) ? id.slice(ID_PREFIX.length) : id;
}

/** A block of a reply. */
export interface ReplyBlock {
  type: string;
  [field: string]: unknown;
}

/** The block with the result of a call. */
export function unavailableResult(kind: string, toolCallId: string): ReplyBlock {
  return {
    type: `${kind}_tool_result`,
    tool_use_id: clientCallId(toolCallId),
    content: { type: `${kind}_tool_result_error`, error_code: 'unavailable' },
  };
}

/** Whether a block in a reply has the result of a tool that Anthropic's servers ran. */
export function isServerResult({ type }: { type: string }): boolean {
  return type.endsWith('_tool_result');
}

/** The text that the model saw as the result of a call. Results of Anthropic's servers are JSON. */
export function resultText(content: unknown): string {
  const isUnavailable = isObject(content) && content.error_code === 'unavailable';
  return JSON.stringify(isUnavailable ? { error: UNAVAILABLE } : (content ?? ''));
}
