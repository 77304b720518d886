// A saved session has tool definitions but no functions. When the session is restored, each definition gets the
// function of an existing tool.
import type { ToolDefinition } from '../../prompt/renderer.js';
import type { McpServers } from '../../tools/mcp/mcp-servers.js';
import { isStandardSchema } from '../../tools/schemas/schema.js';
import { inputSchemaOf, type Tool, ToolSet } from '../../tools/tool.js';

/** The tools that a restored session can use. */
export interface AvailableTools {
  /** The agent's tools without those of MCP servers. */
  agent: ToolSet;
  mcp: McpServers;
}

/**
 * Returns the tools of a saved session, in the saved order. A saved tool runs the agent's tool of the same name. A
 * saved tool of an MCP server runs the tool of the same server. If the caller passes `tools`, they replace the saved
 * tools. Only a saved tool of an MCP server stays, unless `tools` contains a tool of the same name.
 */
export async function savedTools(
  definitions: readonly ToolDefinition[],
  { agent, mcp }: AvailableTools,
  { tools: replacements, signal }: { tools?: readonly Tool[] | undefined; signal?: AbortSignal | undefined },
): Promise<Tool[]> {
  const withoutServer = definitions.filter(({ server }) => server === undefined);
  const withServers = await mcp.extend(await ToolSet.prepare(withoutServer), signal);
  const tools = definitions.map((definition) => withExecute(definition, [agent, withServers]));
  if (replacements === undefined) {
    return tools;
  }
  const names = new Set(replacements.map(({ name }) => name));
  return [...replacements, ...tools.filter(({ name, server }) => server !== undefined && !names.has(name))];
}

/**
 * Adds the function of the matching tool. If the tool's JSON schema is still the saved one, also uses the tool's
 * Standard Schema again, because this schema may transform the arguments.
 */
function withExecute({ parameters, ...definition }: ToolDefinition, toolSets: readonly ToolSet[]): Tool {
  const { tool, schema } = findTool(definition, toolSets) ?? {};
  const isSame = JSON.stringify(schema?.jsonSchema) === JSON.stringify(parameters);
  const current = tool && inputSchemaOf(tool);
  const inputSchema = isSame && isStandardSchema(current) ? current : parameters;
  return {
    ...definition,
    ...(inputSchema !== undefined && { inputSchema }),
    ...(tool?.execute !== undefined && { execute: tool.execute.bind(tool) }),
  };
}

/**
 * Finds the tool with the same name of the same MCP server. For a tool without a server, finds a tool without a server.
 */
function findTool({ name, server }: ToolDefinition, toolSets: readonly ToolSet[]) {
  return namesOf(name, server)
    .flatMap((candidate) => toolSets.map((tools) => tools.get(candidate)))
    .find((tool) => tool !== undefined && tool.tool.server === server);
}

/**
 * The names that a server's tool may have now. Such a tool's name gets the server's name as a prefix if another tool
 * has the same name.
 */
function namesOf(name: string, server: string | undefined): string[] {
  const prefix = `${server}__`;
  return server === undefined ? [name] : [name, name.startsWith(prefix) ? name.slice(prefix.length) : prefix + name];
}
