// MCP servers over HTTP on this machine. Streamable HTTP uses the SDK's transport. This file implements the older SSE
// transport itself, because the SDK's server no longer supports it.
import { randomUUID } from 'node:crypto';
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node';
import { onTestFinished } from 'vitest';
import { makeServer } from './mcp-server.js';
import { type Answers, answerTo } from './odd-mcp-server.js';

export interface HttpMcpServer {
  url: string;
  /** The headers of all requests so far. */
  seen: IncomingMessage['headers'][];
  /** Restarts the server at the same port. The restarted server knows no earlier sessions. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

type Handler = (request: IncomingMessage, response: ServerResponse) => unknown;

async function serve(path: string, makeHandler: () => Handler): Promise<HttpMcpServer> {
  const seen: IncomingMessage['headers'][] = [];
  let handler = makeHandler();
  let http: HttpServer;
  let port = 0;
  const start = async () => {
    http = createServer((request, response) => {
      seen.push(request.headers);
      handler(request, response);
    });
    await new Promise<void>((resolve) => http.listen(port, '127.0.0.1', resolve));
    port = (http.address() as AddressInfo).port;
  };
  const stop = async () => {
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  };
  await start();
  onTestFinished(stop);
  return {
    url: `http://127.0.0.1:${port}${path}`,
    seen,
    stop,
    async restart() {
      await stop();
      handler = makeHandler();
      await start();
    },
  };
}

export function serveStreamableHttp(name: string): Promise<HttpMcpServer> {
  return serve('/mcp', () => {
    const sessions = new Map<string, NodeStreamableHTTPServerTransport>();
    return async (request, response) => {
      const id = request.headers['mcp-session-id'] as string | undefined;
      let transport = id === undefined ? undefined : sessions.get(id);
      if (transport === undefined) {
        if (id !== undefined) {
          response
            .writeHead(404)
            .end(JSON.stringify({ jsonrpc: '2.0', error: { code: -32001, message: 'Session not found' }, id: null }));
          return;
        }
        transport = new NodeStreamableHTTPServerTransport({
          sessionIdGenerator: randomUUID,
          onsessioninitialized: (id) => void sessions.set(id, transport as NodeStreamableHTTPServerTransport),
        });
        await makeServer(name).connect(transport);
      }
      await transport.handleRequest(request, response);
    };
  });
}

/** Serves streamable HTTP without the SDK. Sends the answers of {@link answerTo} as JSON or as an event stream. */
export function serveOddHttp(answers: Answers, type: 'application/json' | 'text/event-stream'): Promise<HttpMcpServer> {
  return serve('/mcp', () => async (request, response) => {
    if (request.method !== 'POST') {
      response.writeHead(405).end();
      return;
    }
    const message = answerTo(answers, JSON.parse(await text(request)))?.at(-1);
    if (message === undefined) {
      response.writeHead(202).end();
      return;
    }
    response.writeHead(200, { 'content-type': type });
    response.end(type === 'application/json' ? message : `event: message\ndata: ${message}\n\n`);
  });
}

export function serveSse(name: string): Promise<HttpMcpServer> {
  return serveEvents(async (transport) => makeServer(name).connect(transport as never));
}

/** Serves the older SSE transport with the answers of {@link answerTo}. */
export function serveOddSse(answers: Answers): Promise<HttpMcpServer> {
  return serveEvents(async (transport, write) => {
    transport.onmessage = (request) => answerTo(answers, request)?.forEach(write);
  });
}

interface EventTransport {
  onmessage?: (message: never) => void;
  onclose?: () => void;
  start(): Promise<void>;
  close(): Promise<void>;
  send(message: object): Promise<void>;
}

function serveEvents(connect: (transport: EventTransport, write: (message: string) => void) => Promise<void>) {
  return serve('/sse', () => {
    const sessions = new Map<string, (message: object) => void>();
    return async (request, response) => {
      const url = new URL(request.url ?? '', 'http://localhost');
      if (request.method === 'POST') {
        sessions.get(url.searchParams.get('session') ?? '')?.(JSON.parse(await text(request)));
        response.writeHead(202).end();
        return;
      }
      const id = randomUUID();
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`event: endpoint\ndata: /messages?session=${id}\n\n`);
      const write = (message: string) => void response.write(`event: message\ndata: ${message}\n\n`);
      const transport: EventTransport = {
        start: async () => {},
        close: async () => void response.end(),
        send: async (message) => write(JSON.stringify(message)),
      };
      sessions.set(id, (message) => transport.onmessage?.(message as never));
      response.on('close', () => transport.onclose?.());
      await connect(transport, write);
    };
  });
}
