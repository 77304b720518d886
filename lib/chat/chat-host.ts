import type { PrefixCache } from '../cache/prefix-cache.js';
import type { Engine } from '../engine/engine.js';
import type { RwLock } from '../engine/rw-lock.js';
import type { SampledReplies } from '../generate/sampled-replies.js';
import type { Model } from '../native/model.js';
import { withCalledTools } from '../prompt/deferred-tools.js';
import type { MessageEnds } from '../prompt/message-end.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { Renderer, TemplateSource } from '../prompt/renderer.js';
import type { Boundary } from '../prompt/template-boundary.js';
import type { Templates } from '../prompt/templates.js';
import { stableToolOrder } from '../prompt/tool-order.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { McpServers } from '../tools/mcp/mcp-servers.js';
import { type Tool, ToolSet } from '../tools/tool.js';
import { contextFull } from './turn-errors.js';

/** The services that all requests and sessions of an agent share. */
export interface ChatServices {
  model: Model;
  engine: Engine;
  cache: PrefixCache;
  renderer: Renderer;
  messageEnds: MessageEnds;
  sampledReplies: SampledReplies;
  contextSize: number;
  /** Turns and session starts hold the read lock. A change of adapters holds the write lock. */
  lock: RwLock;
}

/** The agent's defaults for requests and sessions. */
export interface ChatDefaults {
  systemPrompt: string | undefined;
  tools: ToolSet;
  sampling: SamplingOptions;
}

/** The parts of an agent that are needed to answer a request. */
export interface ChatHost extends ChatServices {
  templates: Templates;
  defaults: ChatDefaults;
  /** Whether the tools of MCP servers are sorted, so that the order of their listings does not change the template. */
  stableTools: boolean;
  /** The MCP servers. Every request and session has their tools. */
  mcp: McpServers;
  /** Throws `CLOSED` if the agent was closed. */
  requireOpen: () => void;
}

type SourceHost = Pick<ChatHost, 'defaults' | 'stableTools' | 'mcp'>;

interface TemplateRequest {
  systemPrompt?: string | undefined;
  tools?: readonly Tool[] | undefined;
  /** The messages at the start of the conversation: see {@link withCalledTools}. @default none */
  messages?: readonly ChatMessage[];
  tenant?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Whether the system prompt and tools are those of a saved session. The agent's defaults are then not added. */
  isRestored?: boolean;
}

/**
 * Adds the defaults of the agent and the tools of MCP servers.
 *
 * @throws HeadstartError `SCHEMA_INVALID`.
 */
export async function templateSource(
  { defaults, stableTools, mcp }: SourceHost,
  { systemPrompt, tools: requested, messages = [], signal, isRestored = false }: TemplateRequest,
): Promise<{ source: TemplateSource; tools: ToolSet }> {
  const ownTools = requested === undefined ? defaults.tools : await ToolSet.prepare(requested);
  const tools = isRestored ? ownTools : await mcp.extend(ownTools, signal);
  const { definitions } = tools;
  const source: TemplateSource = {
    systemPrompt: systemPrompt ?? (isRestored ? undefined : defaults.systemPrompt),
    tools: withCalledTools(stableTools ? stableToolOrder(definitions) : definitions, messages),
  };
  return { source, tools };
}

/**
 * Finds the template of conversations with this system prompt and these tools.
 *
 * @throws HeadstartError `CONTEXT_FULL`, `SCHEMA_INVALID`, and the errors of rendering.
 */
export async function findTemplate(
  host: SourceHost & Pick<ChatHost, 'cache' | 'templates' | 'contextSize'>,
  request: TemplateRequest,
): Promise<{ source: TemplateSource; tools: ToolSet; boundary: Boundary }> {
  const { source, tools } = await templateSource(host, request);
  const boundary = await host.cache.expecting(request.tenant, () => host.templates.find(source));
  const { length } = boundary.tokens;
  if (length >= host.contextSize) {
    throw contextFull(
      'The template',
      length,
      host.contextSize,
      'Shorten the system prompt or tools, or raise `contextSize`.',
    );
  }
  return { source, tools, boundary };
}
