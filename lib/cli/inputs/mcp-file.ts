// Reads the JSON files in which Claude Desktop, Cursor and VS Code configure MCP servers.
import { HeadstartError } from '../../errors.js';
import { isObject, type JsonObject } from '../../json.js';
import { definedOptions } from '../../options.js';
import type { McpServerConfig } from '../../tools/mcp/mcp-config.js';
import { readJsonFile } from './json-file.js';

/** Values for variables such as `${workspaceFolder}`. */
export interface McpVariables {
  environment: NodeJS.ProcessEnv;
  /** The working directory. */
  directory: string;
}

/**
 * Reads the servers of a configuration file: the object `mcpServers` (Claude Desktop, Cursor) or `servers` (VS Code).
 * Servers with `disabled` are left out.
 *
 * @throws HeadstartError `CONFIG_INVALID`, `READ_FAILED`.
 */
export async function readMcpFile(path: string, variables: McpVariables): Promise<McpServerConfig[]> {
  const file = await readJsonFile(path);
  const servers = isObject(file) ? (file.mcpServers ?? file.servers) : undefined;
  if (!isObject(servers)) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected an object with "mcpServers" or "servers" in ${path}, as Claude Desktop, Cursor and VS Code write it`,
    );
  }
  return Object.entries(servers).flatMap(([name, server]) => {
    if (!isObject(server)) {
      throw new HeadstartError('CONFIG_INVALID', `Expected the MCP server "${name}" in ${path} to be an object`);
    }
    return server.disabled === true ? [] : [serverOf(name, substituted(server, variables) as JsonObject)];
  });
}

function serverOf(name: string, server: JsonObject): McpServerConfig {
  // The other servers must work even if this one cannot be reached. The agent prints a warning about it.
  const common = { name: validName(name), required: false };
  const { url, type, command, args, env, cwd, headers } = server;
  if (url !== undefined) {
    const options = { url, headers, type: type === 'sse' ? 'sse' : 'http' };
    return { ...common, ...definedOptions(options) } as McpServerConfig;
  }
  return { ...common, ...definedOptions({ command, args, env, cwd }), type: 'stdio' } as McpServerConfig;
}

/** Makes a valid name, because these files allow any text as a name. */
function validName(name: string): string {
  return (
    name
      .replace(/[^\w-]+/g, '_')
      .replace(/__+/g, '_')
      .slice(0, 64) || 'server'
  );
}

/** Replaces the variables in all texts of a value. */
function substituted(value: unknown, variables: McpVariables): unknown {
  if (typeof value === 'string') {
    return value.replace(/\$\{([^}]+)\}/g, (_, name: string) => variable(name, variables));
  }
  if (Array.isArray(value)) {
    return value.map((each) => substituted(each, variables));
  }
  return isObject(value)
    ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, substituted(each, variables)]))
    : value;
}

function variable(name: string, { environment, directory }: McpVariables): string {
  if (name === 'workspaceFolder') {
    return directory;
  }
  const [, own = '', fallback] = /^(?:env:)?(\w+)(?::-(.*))?$/s.exec(name) ?? [];
  const value = environment[own] ?? fallback;
  if (value === undefined) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected a value for \${${name}} in the configuration of the MCP servers. ` +
        (name.startsWith('input:') ? 'Write the value into the file' : 'Set this environment variable'),
    );
  }
  return value;
}
