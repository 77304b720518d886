import { readFile } from 'node:fs/promises';
import stripJsonComments from 'strip-json-comments';
import { HeadstartError } from '../../errors.js';

/**
 * Reads a text file that the user named.
 *
 * @throws HeadstartError `READ_FAILED`.
 */
export async function readTextFile(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new HeadstartError('READ_FAILED', `Could not read "${path}": ${(cause as Error).message}`, { cause });
  }
}

/**
 * Reads a JSON file that the user named. The file may have comments and trailing commas, as VS Code writes them.
 *
 * @throws HeadstartError `READ_FAILED`, `CONFIG_INVALID` if the file is not JSON.
 */
export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path);
  try {
    return JSON.parse(stripJsonComments(text.replace(/^\uFEFF/, ''), { trailingCommas: true }));
  } catch (cause) {
    throw new HeadstartError('CONFIG_INVALID', `Expected JSON in "${path}": ${(cause as Error).message}`, { cause });
  }
}
