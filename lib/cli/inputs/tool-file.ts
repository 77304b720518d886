// Reads the tools of `--tools FILE`.
import { extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { HeadstartError } from '../../errors.js';
import { isObject, type JsonObject } from '../../json.js';
import { definedOptions } from '../../options.js';
import { checkTools, type Tool } from '../../tools/tool.js';
import { readJsonFile } from './json-file.js';

/**
 * Reads tools from a file.
 *
 * - A module (`.js`, `.mjs`, `.cjs`, `.ts`, `.mts`) exports tools: an array as `default` or `tools`, or single tools.
 *   Its tools can have `execute`.
 * - Any other file is JSON: an array of tools in the form of this package, of OpenAI or of Anthropic, or a request
 *   with such an array as `tools`. These tools have no code.
 *
 * @throws HeadstartError `READ_FAILED`, `CONFIG_INVALID`.
 */
export async function readToolFile(path: string): Promise<readonly Tool[]> {
  const tools = /^\.[cm]?[jt]s$/.test(extname(path)) ? await fromModule(path) : fromJson(await readJsonFile(path));
  const problem = checkTools(tools);
  if (problem !== undefined) {
    throw new HeadstartError('CONFIG_INVALID', `Expected ${problem} in "${path}"`);
  }
  return tools as readonly Tool[];
}

async function fromModule(path: string): Promise<unknown> {
  let module: JsonObject;
  try {
    module = await import(pathToFileURL(resolve(path)).href);
  } catch (cause) {
    throw new HeadstartError('READ_FAILED', `Could not load the tools of "${path}": ${(cause as Error).message}`, {
      cause,
    });
  }
  const list = module.default ?? module.tools;
  return Array.isArray(list) ? list : Object.values(module).filter((each) => isObject(each) && 'name' in each);
}

function fromJson(file: unknown): unknown {
  const list = isObject(file) ? file.tools : file;
  return Array.isArray(list) ? list.map(fromOtherForm) : list;
}

/** Converts a tool of another API. */
function fromOtherForm(tool: unknown): unknown {
  if (!isObject(tool)) {
    return tool;
  }
  const {
    name,
    description,
    parameters,
    inputSchema,
    input_schema: schema,
  } = isObject(tool.function) ? tool.function : tool;
  return definedOptions({ name, description, inputSchema: inputSchema ?? schema ?? parameters });
}
