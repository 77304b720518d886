// A local server with the API of the Hugging Face Hub, and a second server that serves files like the Hub's CDN. Tests
// choose which requests fail and how.
import { createHash } from 'node:crypto';
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

/**
 * The faults of one response. A field that is not set has no effect. Downloads support all fields. The API supports
 * only `status` with `headers` and `body`, and `dropAfter`. If `dropAfter` is set, the API closes the connection at
 * once.
 */
export interface Fault {
  status?: number;
  headers?: Record<string, string>;
  /** Closes the connection after this number of bytes of the body. */
  dropAfter?: number;
  /** Stops sending after this number of bytes of the body, but keeps the connection open. */
  stallAfter?: number;
  /** Answers a Range request with the whole file. */
  ignoreRange?: boolean;
  /** The server sends this body instead of the file. */
  body?: Buffer;
  etag?: string;
  /** The answer starts when this promise resolves. */
  until?: Promise<unknown>;
}

export interface SeenRequest {
  host: 'hub' | 'cdn';
  url: string;
  headers: IncomingHttpHeaders;
}

const COMMIT = 'c0ffee'.padEnd(40, '0');

export class FakeHub {
  readonly requests: SeenRequest[] = [];
  /** Each download from the CDN removes the first fault from this list and applies it. */
  readonly faults: Fault[] = [];
  /** Each request to the API removes the first fault from this list and applies it. */
  readonly apiFaults: Fault[] = [];
  /** If this token is set, a request to the API without this token gets the status 401. */
  token: string | undefined;
  pageSize = 1000;
  baseModel: string | undefined;
  commit = COMMIT;
  readonly #repos = new Map<string, Map<string, Buffer>>();
  endpoint = '';
  cdn = '';
  #servers: Server[] = [];

  static async start(): Promise<FakeHub> {
    const hub = new FakeHub();
    const cdn = await listen((request, response) => hub.#serveFile(request, response));
    const api = await listen((request, response) => hub.#serve(request, response));
    hub.#servers = [cdn, api];
    hub.cdn = addressOf(cdn);
    hub.endpoint = addressOf(api);
    onTestFinished(() => hub.stop());
    return hub;
  }

  add(repo: string, files: Record<string, Buffer>): void {
    this.#repos.set(repo, new Map(Object.entries(files)));
  }

  /** Requests for the content of files. */
  get downloads(): SeenRequest[] {
    return this.requests.filter(({ host }) => host === 'cdn');
  }

  async stop(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', this.endpoint);
    this.requests.push({ host: 'hub', url: request.url ?? '', headers: request.headers });
    const fault = this.apiFaults.shift();
    if (fault?.dropAfter !== undefined) {
      request.socket.destroy();
      return;
    }
    if (fault?.status !== undefined) {
      response.writeHead(fault.status, fault.headers).end(fault.body);
      return;
    }
    if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) {
      response.writeHead(401, { 'x-error-message': 'Invalid username or password.' }).end();
      return;
    }
    const [, api, repo = '', rest = ''] = /^\/(api\/models\/)?([^/]+\/[^/]+)\/(.*)$/.exec(url.pathname) ?? [];
    const files = this.#repos.get(repo);
    if (files === undefined) {
      response.writeHead(404, { 'x-error-code': 'RepoNotFound', 'x-error-message': 'Repository not found' }).end();
    } else if (api !== undefined && rest.startsWith('revision/')) {
      json(response, { sha: this.commit, cardData: this.baseModel && { base_model: this.baseModel } });
    } else if (api !== undefined && rest.startsWith(`tree/${this.commit}`)) {
      this.#serveTree(url, files, response);
    } else {
      const path = rest.replace(/^resolve\/[^/]+\//, '');
      response.writeHead(302, { location: `${this.cdn}/${repo}/${path}?signature=secret` }).end();
    }
  }

  #serveTree(url: URL, files: Map<string, Buffer>, response: ServerResponse): void {
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const entries = [...files].map(([path, content]) =>
      path.endsWith('.gguf')
        ? {
            type: 'file',
            path,
            oid: 'f'.repeat(40),
            size: content.length,
            lfs: { oid: sha256(content), size: content.length, pointerSize: 134 },
          }
        : { type: 'file', path, oid: gitOid(content), size: content.length },
    );
    if (from + this.pageSize < entries.length) {
      url.searchParams.set('cursor', String(from + this.pageSize));
      response.setHeader('link', `<${url.href}>; rel="next"`);
    }
    json(response, [
      { type: 'directory', path: 'a-folder', oid: '0', size: 0 },
      ...entries.slice(from, from + this.pageSize),
    ]);
  }

  async #serveFile(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests.push({ host: 'cdn', url: request.url ?? '', headers: request.headers });
    const fault = this.faults.shift() ?? {};
    await fault.until;
    if (fault.status !== undefined) {
      response.writeHead(fault.status, fault.headers).end(fault.body);
      return;
    }
    const [, repo = '', path = ''] = /^\/([^/]+\/[^/]+)\/([^?]*)/.exec(request.url ?? '') ?? [];
    const content = fault.body ?? this.#repos.get(repo)?.get(decodeURIComponent(path));
    if (content === undefined) {
      response.writeHead(404).end();
      return;
    }
    const etag = fault.etag ?? `"${sha256(content).slice(0, 8)}"`;
    const [, start] = /^bytes=(\d+)-$/.exec(request.headers.range ?? '') ?? [];
    const sameContent = request.headers['if-range'] === undefined || request.headers['if-range'] === etag;
    const from = start !== undefined && !fault.ignoreRange && sameContent ? Number(start) : 0;
    if (from > 0 && from >= content.length) {
      response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end();
      return;
    }
    const body = content.subarray(from);
    const range = { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` };
    response.writeHead(from > 0 ? 206 : 200, {
      etag,
      'content-length': body.length,
      ...(from > 0 && range),
      ...fault.headers,
    });
    const cut = fault.dropAfter ?? fault.stallAfter;
    if (cut === undefined) {
      response.end(body);
      return;
    }
    response.write(body.subarray(0, cut), () => {
      if (fault.dropAfter !== undefined) {
        setTimeout(() => response.destroy(), 20); // in this time, the client usually receives the bytes
      }
    });
  }
}

export function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}

function gitOid(content: Buffer): string {
  return createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
}

function json(response: ServerResponse, body: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(body));
}

async function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const server = createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

function addressOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
