// The limits on time: clients that send slowly, do nothing or read nothing lose their connection.
import { connect, type Socket } from 'node:net';
import type { ChatModel, ReplyStream, StreamPart } from 'llama-headstart';
import { createHandler, type ListenOptions, listen } from 'llama-headstart/server';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startAgent } from '../../helpers/agents.js';
import { startServer } from '../../helpers/server.js';

/** Connects to a server and sends a text. */
async function connectTo({ port }: { port: number }, text: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => undefined); // a closed connection may be reset
  await new Promise((resolve) => socket.once('connect', resolve));
  socket.write(text);
  return socket;
}

/** Everything that a socket receives until its end. */
async function received(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  await new Promise((resolve) => socket.once('close', resolve));
  return text;
}

const JSON_HEADERS = 'host: localhost\r\ncontent-type: application/json\r\n';

const postOf = (path: string, body: object) => {
  const text = JSON.stringify(body);
  return `POST ${path} HTTP/1.1\r\n${JSON_HEADERS}content-length: ${text.length}\r\n\r\n${text}`;
};

describe('a connection is closed', () => {
  const startWith = (limits: ListenOptions) => startServer({}, {}, limits);

  it('if the headers of a request do not arrive in `headersTimeoutMs`', async () => {
    const server = await startWith({ headersTimeoutMs: 20 });
    const socket = await connectTo(server, 'GET /health HTTP/1.1\r\nhost: localhost\r\n');
    expect(await received(socket)).toMatch(/^HTTP\/1\.1 408 /);
  });

  it('if the body of a request does not arrive in `requestTimeoutMs`', async () => {
    const server = await startWith({ requestTimeoutMs: 20 });
    const unfinished = `POST /v1/chat/completions HTTP/1.1\r\n${JSON_HEADERS}content-length: 100\r\n\r\n{"messages":`;
    expect(await received(await connectTo(server, unfinished))).toMatch(/^HTTP\/1\.1 408 /);
  });

  it('if it has sent no request when the server closes', async () => {
    const server = await startServer({}, {}, { closeTimeoutMs: 86_400_000 });
    const sockets = [await connectTo(server, ''), await connectTo(server, 'GET /health HTTP/1.1\r\n')];
    const texts = Promise.all(sockets.map((socket) => received(socket)));
    await server.get('/health'); // the server has accepted the earlier connections
    await server.close();
    expect(await texts).toEqual(['', '']);
  });

  it('if it is idle for `idleTimeoutMs` after a request', async () => {
    const server = await startWith({ idleTimeoutMs: 20 });
    const socket = await connectTo(server, 'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
    expect(await received(socket)).toMatch(/^HTTP\/1\.1 200 .*\{"status":"ok"\}$/s);
  });
});

/** A model whose replies never end. */
async function startEndless() {
  const { id } = await startAgent();
  let onAborted: () => void = () => undefined;
  const aborted = new Promise<void>((resolve) => {
    onAborted = resolve;
  });
  async function* parts(signal: AbortSignal | undefined): AsyncGenerator<StreamPart, undefined, undefined> {
    signal?.addEventListener('abort', () => onAborted());
    while (!signal?.aborted) {
      yield { type: 'text-delta', text: 'x'.repeat(256 * 1024) };
    }
    throw signal.reason;
  }
  const model = {
    id,
    countTokens: async () => 1,
    chat: ({ signal }) => parts(signal) as unknown as ReplyStream<StreamPart, never>,
  } as ChatModel;
  return { handler: createHandler(model, { maxRequests: 1, keepAliveMs: 10 }), aborted };
}

describe('a client that stops reading', () => {
  it.each(['/v1/chat/completions', '/v1/messages'])(
    'loses its connection to %s, and its reply is aborted',
    async (path) => {
      const { handler, aborted } = await startEndless();
      const server = await listen(handler, { port: 0, readTimeoutMs: 20 });
      onTestFinished(() => server.close());
      const socket = await connectTo(
        server,
        postOf(path, { messages: [{ role: 'user', content: 'Hi' }], stream: true }),
      );
      socket.pause();
      await aborted;
    },
  );
});
