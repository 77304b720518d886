import { readdir, readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { HeadstartError } from '../errors.js';
import { chooseModel } from './choose-model.js';

/**
 * Returns the path of a model's file. For a split model, checks that all parts exist and returns the first one.
 *
 * @throws HeadstartError `MODEL_NOT_FOUND`.
 */
export async function findLocalModel(input: string): Promise<string> {
  const path = absolutePath(input.replace(/^~(?=\/|$)/, () => homedir()));
  const stats = await stat(path).catch((cause: Error) => {
    const hint =
      /^[\w.-]+\/[\w.-]+$/.test(input) && !input.endsWith('.gguf')
        ? `. For a repository of the Hub, use "hf:${input}"`
        : '';
    throw notFound(path, `${cause.message}${hint}`, cause);
  });
  if (stats.isDirectory()) {
    const [first = ''] = chooseModel(await namesIn(path), {}, `"${path}"`);
    return join(path, first);
  }
  if (!stats.isFile()) {
    throw new HeadstartError('MODEL_NOT_FOUND', `Expected a GGUF file at "${path}", got a device`);
  }
  const isPart = /-\d{5}-of-\d{5}\.gguf$/.test(path);
  if (!isPart) {
    return path;
  }
  const folder = dirname(path);
  const [first = ''] = chooseModel(await namesIn(folder), { filename: basename(path) }, `"${folder}"`);
  return join(folder, first);
}

function absolutePath(path: string): string {
  try {
    return resolve(path);
  } catch (cause) {
    throw notFound(path, 'the working directory was deleted', cause);
  }
}

function notFound(path: string, why: string, cause: unknown): HeadstartError {
  return new HeadstartError('MODEL_NOT_FOUND', `Expected a GGUF file at "${path}": ${why}`, { cause });
}

/** The parsed generation_config.json in the directory of a model, or undefined if it is missing or invalid. */
export async function generationConfigBeside(model: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(join(dirname(model), 'generation_config.json'), 'utf8'));
  } catch {
    return undefined;
  }
}

/** The names of the files in a folder. Links count as their targets. */
async function namesIn(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  const isFile = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        (stats) => stats.isFile(),
        () => false,
      ),
    ),
  );
  return names.filter((_, index) => isFile[index]).sort();
}
