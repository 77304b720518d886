import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { getRequestListener, type HttpBindings } from '@hono/node-server';
import { HeadstartError } from '../errors.js';
import { parseOptions } from '../parse-options.js';
import type { Handler } from './handler.js';
import { LISTEN_OPTIONS, type ListenOptions, type ResolvedListenOptions } from './server-options.js';

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
/** Maximum size of the headers of a request, in bytes. */
const MAX_HEADER_BYTES = 32 * 1024;
/** Maximum interval between two checks of the time limits for requests, in ms. */
const MAX_CHECK_INTERVAL_MS = 30_000;

/**
 * Serves a handler on a port.
 *
 * @throws HeadstartError `CONFIG_INVALID` for wrong options, and if the address is not loopback and the handler has no
 *   API keys. An address that is in use rejects with the error of node:net, for example `EADDRINUSE`.
 */
export async function listen(handler: Handler, options: ListenOptions = {}): Promise<ListeningServer> {
  const parsed = parseOptions(LISTEN_OPTIONS, options, { where: 'the options of `listen`' });
  const { host, port, closeTimeoutMs } = parsed;
  if (!LOOPBACK.has(host) && !handler.needsKey) {
    throw new HeadstartError(
      'CONFIG_INVALID',
      `Expected API keys to listen on ${host}, because other machines can reach this address: pass \`apiKeys\` to ` +
        '`createHandler`, or listen on 127.0.0.1',
    );
  }
  const server = serverOf(handler, parsed);
  const unused = trackConnections(server);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const address = server.address() as AddressInfo;
  const name = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= closeServer(server, unused, closeTimeoutMs);
    return closing;
  };
  return { url: `http://${name}:${address.port}`, port: address.port, close, [Symbol.asyncDispose]: close };
}

function serverOf(handler: Handler, limits: ResolvedListenOptions): Server {
  const { requestTimeoutMs: requestTimeout, idleTimeoutMs: keepAliveTimeout, readTimeoutMs } = limits;
  const headersTimeout = Math.min(limits.headersTimeoutMs, requestTimeout); // node:http refuses a longer time
  const connectionsCheckingInterval = Math.min(headersTimeout, MAX_CHECK_INTERVAL_MS);
  const timeouts = { headersTimeout, requestTimeout, keepAliveTimeout, connectionsCheckingInterval };
  const serve = async (request: Request, { outgoing }: HttpBindings) => {
    const response = await handler(request);
    destroyUnread(outgoing, readTimeoutMs);
    return response;
  };
  return createServer(
    { maxHeaderSize: MAX_HEADER_BYTES, ...timeouts },
    getRequestListener((request, env) => serve(request, env as HttpBindings), { overrideGlobalObjects: false }),
  );
}

/** Closes the connection of a client that leaves the bytes of a response unread. */
function destroyUnread(response: ServerResponse, timeoutMs: number): void {
  response.setTimeout(timeoutMs, () => {
    // A stream without new events is idle too, but it leaves nothing unread.
    if (response.writableLength > 0) {
      response.destroy();
    }
  });
}

/**
 * Tracks the connections on which no request has arrived yet. For node:http these connections are not idle. Also closes
 * the connection of each reply that ends after the server was closed.
 *
 * @returns the connections without a request
 */
function trackConnections(server: Server): ReadonlySet<Socket> {
  const unused = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  server.on('request', ({ socket }, response) => {
    unused.delete(socket);
    response.once('close', () => {
      if (!server.listening) {
        setImmediate(() => server.closeIdleConnections()); // the connection is not idle before the next turn
      }
    });
  });
  return unused;
}

async function closeServer(server: Server, unused: ReadonlySet<Socket>, timeoutMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  for (const socket of unused) {
    socket.destroy();
  }
  const timer = setTimeout(() => server.closeAllConnections(), timeoutMs);
  await closed;
  clearTimeout(timer);
}
