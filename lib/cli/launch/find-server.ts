// Finds a server of this package that is already running.
import { throwIfAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import { isObject } from '../../json.js';

/** A server that is already running. */
export interface FoundServer {
  url: string;
  /** The name of its model. */
  model: string;
  /** Maximum number of tokens of a conversation. */
  contextSize: number;
}

/** A server on this machine answers within milliseconds, unless the machine is very busy. */
const PATIENCE_MS = 3000;

/**
 * Asks whether a server of this package listens at an address.
 *
 * @returns undefined if nothing listens there, or another program
 * @throws HeadstartError `CONFIG_INVALID` if the server needs another API key.
 */
export async function findServer(
  url: string,
  apiKey: string | undefined,
  signal: AbortSignal,
): Promise<FoundServer | undefined> {
  const response = await fetch(`${url}/props`, {
    headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
    signal: AbortSignal.any([signal, AbortSignal.timeout(PATIENCE_MS)]),
  }).catch(() => undefined);
  throwIfAborted(signal);
  if (response?.status === 401) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected an API key of the server at ${url}, got ${apiKey === undefined ? 'none' : 'another key'}. ` +
        'Pass --api-key-file with the file of the server, or start another server with --port 0',
    );
  }
  const properties: unknown = response?.ok ? await response.json().catch(() => undefined) : undefined;
  return isObject(properties) ? readProperties(url, properties) : undefined;
}

function readProperties(url: string, properties: Readonly<Record<string, unknown>>): FoundServer | undefined {
  const { build_info: build, model_alias: model, default_generation_settings: settings } = properties;
  const contextSize = isObject(settings) ? settings.n_ctx : undefined;
  const isOurs = typeof build === 'string' && build.startsWith('llama-headstart ');
  return isOurs && typeof model === 'string' && typeof contextSize === 'number'
    ? { url, model, contextSize }
    : undefined;
}
