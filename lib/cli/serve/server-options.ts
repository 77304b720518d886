// The options of commands that start a server.
import { resolve } from 'node:path';
import { integer } from '../../option-types.js';
import type { ApiKey } from '../../server/server-options.js';
import type { Call } from '../command.js';
import { numberOption, pathOption } from '../option.js';
import { MODEL_OPTIONS } from '../shared-options.js';

export const DEFAULT_PORT = 8080;

/** The options of `serve` and `launch`. */
export const SERVER_OPTIONS = {
  ...MODEL_OPTIONS,
  contextSize: {
    ...MODEL_OPTIONS.contextSize,
    defaultAbout: 'the training length of the model, reduced to what memory allows',
  },
  threads: { ...MODEL_OPTIONS.threads, defaultAbout: 'adapts to the load of the machine' },
  port: numberOption('number', integer(0, 65_535), 'the port; 0 chooses a free one', { default: DEFAULT_PORT }),
  apiKeyFile: pathOption('file', 'file with API keys: one in each line, and after it `admin` or `tenant=NAME`'),
};

/** Reads the API keys. Undefined if the option is absent. */
export async function apiKeysOf(
  { io }: Pick<Call, 'io'>,
  file: string | undefined,
): Promise<readonly ApiKey[] | undefined> {
  if (file === undefined) {
    return undefined;
  }
  const { readApiKeys } = await import('./api-key-file.js');
  return readApiKeys(resolve(io.cwd, file));
}
