// The configuration file of the command line. It has the same options as the commands.
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { z } from 'zod';
import { HeadstartError } from '../errors.js';
import { isObject } from '../json.js';
import { group, text } from '../option-types.js';
import { parseOptions } from '../parse-options.js';
import type { AnyCommand } from './command.js';
import type { CliIo } from './io.js';
import type { Options } from './option.js';

export const CONFIG_NAME = 'llama-headstart.config.json';
export const CONFIG_VARIABLE = 'LLAMA_HEADSTART_CONFIG';

/** The checked contents of a configuration file. */
export interface Config {
  /** Undefined if there is no file. */
  path: string | undefined;
  /** The options of one command: those in its group, and those for all commands. Paths are absolute. */
  of(command: Pick<AnyCommand, 'name' | 'options'>): Record<string, unknown>;
}

/**
 * Reads the configuration file: the named one, else the one that the environment names, else the one in the working
 * directory. The last one may be absent.
 *
 * @param shared the options that the file may set for all commands
 * @throws HeadstartError `CONFIG_INVALID`.
 */
export async function readConfig(
  { env, cwd }: CliIo,
  named: string | undefined,
  shared: Options,
  commands: readonly AnyCommand[],
): Promise<Config> {
  const wanted = named ?? (env[CONFIG_VARIABLE] || undefined);
  const path = resolve(cwd, wanted ?? CONFIG_NAME);
  const json = await readJson(path, wanted !== undefined);
  if (json === undefined) {
    return { path: undefined, of: () => ({}) };
  }
  const where = `"${path}"`;
  const config = parseOptions(configSchema(shared, commands), json, { where }) as Record<string, unknown>;
  return {
    path,
    of: ({ name, options }) => {
      const own = (config[name] ?? {}) as Record<string, unknown>;
      const values = Object.keys(options).map((option) => [option, own[option] ?? config[option]] as const);
      return Object.fromEntries(
        values.map(([option, value]) => [option, absolute(options[option], value, dirname(path))]),
      );
    },
  };
}

/** The options of all commands at the top, and a group with the options of each command. */
function configSchema(shared: Options, commands: readonly AnyCommand[]): z.ZodType {
  const groups = commands
    .map(({ name, options }) => [name, shapeOf(options)] as const)
    .filter(([, shape]) => Object.keys(shape).length > 0)
    .map(([name, shape]) => [name, group(shape).optional()]);
  return group({ $schema: text().optional(), ...shapeOf(shared), ...Object.fromEntries(groups) });
}

function shapeOf(options: Options): Record<string, z.ZodType> {
  const configurable = Object.entries(options).filter(([, { isConfigurable }]) => isConfigurable);
  return Object.fromEntries(configurable.map(([name, { schema }]) => [name, schema.optional()]));
}

function absolute(option: Options[string] | undefined, value: unknown, directory: string): unknown {
  const toAbsolute = (path: unknown) =>
    typeof path === 'string' && !path.startsWith('~/') ? resolve(directory, path) : path;
  if (option?.isPath !== true) {
    return value;
  }
  return Array.isArray(value) ? value.map(toAbsolute) : toAbsolute(value);
}

async function readJson(path: string, isRequired: boolean): Promise<unknown> {
  let contents: string;
  try {
    contents = await readFile(path, 'utf8');
  } catch (cause) {
    if (!isRequired && (cause as NodeJS.ErrnoException).code === 'ENOENT') {
      return undefined;
    }
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected a configuration file at "${path}", but it cannot be read: ${(cause as Error).message}.`,
      { cause },
    );
  }
  try {
    const json: unknown = JSON.parse(contents.replace(/^\uFEFF/, ''));
    if (isObject(json)) {
      return json;
    }
  } catch (cause) {
    throw new HeadstartError('CONFIG_INVALID', `Expected JSON in "${path}": ${(cause as Error).message}.`, { cause });
  }
  throw new HeadstartError('CONFIG_INVALID', `Expected an object in "${path}".`);
}
