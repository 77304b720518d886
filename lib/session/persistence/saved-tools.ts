// A file holds no functions: who runs the tools of a session that was saved.
import type { ToolDefinition } from '../../prompt/renderer.js';
import type { McpServers } from '../../tools/mcp/mcp-servers.js';
import { isStandardSchema } from '../../tools/schemas/schema.js';
import { inputSchemaOf, type Tool, ToolSet } from '../../tools/tool.js';

/** Who has the tools that are there now. */
export interface AvailableTools {
  /** The agent's own. */
  own: ToolSet;
  mcp: McpServers;
}

/**
 * The tools of a saved session, in its order. Its own are run by the agent's of the same name, or are `given` again as a whole;
 * those of servers by the same server's, and are kept but where their name is given.
 */
export async function savedTools(
  definitions: readonly ToolDefinition[],
  { own, mcp }: AvailableTools,
  { tools: given, signal }: { tools?: readonly Tool[] | undefined; signal?: AbortSignal | undefined },
): Promise<Tool[]> {
  const ownDefinitions = definitions.filter(({ server }) => server === undefined);
  const servers = await mcp.extend(await ToolSet.prepare(ownDefinitions), signal);
  const tools = definitions.map((definition) => withExecute(definition, [own, servers]));
  if (given === undefined) {
    return tools;
  }
  const names = new Set(given.map(({ name }) => name));
  return [...given, ...tools.filter(({ name, server }) => server !== undefined && !names.has(name))];
}

/** Where its parameters are those of the file, what the tool's own schema makes of the arguments counts too. */
function withExecute({ parameters, ...definition }: ToolDefinition, known: readonly ToolSet[]): Tool {
  const { tool, schema } = findTool(definition, known) ?? {};
  const isSame = JSON.stringify(schema?.jsonSchema) === JSON.stringify(parameters);
  const current = tool && inputSchemaOf(tool);
  const inputSchema = isSame && isStandardSchema(current) ? current : parameters;
  return {
    ...definition,
    ...(inputSchema !== undefined && { inputSchema }),
    ...(tool?.execute !== undefined && { execute: tool.execute.bind(tool) }),
  };
}

/** A tool of the same server, or of none: a server never runs what is a session's own, nor the other way round. */
function findTool({ name, server }: ToolDefinition, known: readonly ToolSet[]) {
  return namesOf(name, server)
    .flatMap((each) => known.map((tools) => tools.get(each)))
    .find((found) => found !== undefined && found.tool.server === server);
}

/** A server's tool has its server's name before its own or not, as others have that name too or no longer. */
function namesOf(name: string, server: string | undefined): string[] {
  const prefix = `${server}__`;
  return server === undefined ? [name] : [name, name.startsWith(prefix) ? name.slice(prefix.length) : prefix + name];
}
