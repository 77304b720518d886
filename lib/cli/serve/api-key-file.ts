// Reads the file of `--api-key-file`.
import { HeadstartError } from '../../errors.js';
import type { ApiKey } from '../../server/server-options.js';
import { readTextFile } from '../inputs/json-file.js';

/**
 * Reads API keys, one in each line: the key, and after it `admin`, `tenant=NAME` or both. Empty lines, and lines that
 * begin with `#`, are ignored.
 *
 * @throws HeadstartError `READ_FAILED`, `CONFIG_INVALID`. Messages name the line, and never quote the key.
 */
export async function readApiKeys(path: string): Promise<ApiKey[]> {
  const lines = (await readTextFile(path)).split(/\r?\n/).map((line) => line.trim());
  const keys = lines.flatMap((line, index) =>
    line === '' || line.startsWith('#') ? [] : [keyOf(line, path, index + 1)],
  );
  if (keys.length === 0) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected an API key in "${path}", found none: write one key in each line`,
    );
  }
  return keys;
}

function keyOf(line: string, path: string, number: number): ApiKey {
  const [key = '', ...words] = line.split(/\s+/);
  const apiKey: ApiKey = { key };
  for (const word of words) {
    const tenant = /^tenant=(.+)$/.exec(word)?.[1];
    if (tenant !== undefined) {
      apiKey.tenant = tenant;
    } else if (word === 'admin') {
      apiKey.admin = true;
    } else {
      throw new HeadstartError(
        'CONFIG_INVALID',
        `Expected a key, and after it only "admin" or "tenant=NAME", in line ${number} of "${path}"`,
      );
    }
  }
  return apiKey;
}
