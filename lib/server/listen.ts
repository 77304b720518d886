import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { HeadstartError } from '../errors.js';
import { parseOptions } from '../parse-options.js';
import type { Handler } from './handler.js';
import { LISTEN_OPTIONS, type ListenOptions } from './server-options.js';

/** A server that accepts connections. */
export interface ListeningServer {
  /** The address with port, for example `http://127.0.0.1:8080`. */
  readonly url: string;
  /** The port. */
  readonly port: number;
  /**
   * Stops accepting connections, waits for the running requests up to `closeTimeoutMs`, and aborts the others.
   * Idempotent. Close the agent afterwards: it saves idle conversations.
   */
  close(): Promise<void>;
  /** The same as {@link ListeningServer.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

const LOOPBACK: ReadonlySet<string> = new Set(['127.0.0.1', '::1', 'localhost']);
/** Maximum time for the headers of a request, in ms. */
const HEADERS_TIMEOUT_MS = 60_000;
/** Idle connections are closed after this time, in ms. */
const IDLE_TIMEOUT_MS = 120_000;
/** Maximum size of the headers of a request, in bytes. */
const MAX_HEADER_BYTES = 32 * 1024;

/**
 * Serves a handler on a port.
 *
 * @throws HeadstartError `CONFIG_INVALID` for wrong options, and if the address is not loopback and the handler has no
 *   API keys. An address that is in use rejects with the error of node:net, for example `EADDRINUSE`.
 */
export async function listen(handler: Handler, options: ListenOptions = {}): Promise<ListeningServer> {
  const { host, port, closeTimeoutMs } = parseOptions(LISTEN_OPTIONS, options, { where: 'the options of `listen`' });
  if (!LOOPBACK.has(host) && !handler.needsKey) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected API keys to listen on ${host}, because other machines can reach this address: pass \`apiKeys\` to ` +
        '`createHandler`, or listen on 127.0.0.1',
    );
  }
  const server = createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: HEADERS_TIMEOUT_MS, keepAliveTimeout: IDLE_TIMEOUT_MS },
    getRequestListener(handler, { overrideGlobalObjects: false }),
  );
  server.requestTimeout = 0; // replies may take long
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeServer(server, closeTimeoutMs);
    return closing;
  };
  return { url: `http://${name}:${address.port}`, port: address.port, close, [Symbol.asyncDispose]: close };
}

async function closeServer(server: Server, timeoutMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), timeoutMs);
  await closed;
  clearTimeout(timer);
}
