// Sends one HTTP request. This code, not `fetch`, follows redirects, so that secrets are sent only to their own origin.

import { abortedError, onAbort, throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { TransientError } from './retry.js';

const MAX_REDIRECTS = 10;

export interface HttpRequest {
  url: string;
  /** Sent to every origin, even after redirects. */
  headers?: Readonly<Record<string, string>>;
  /** Sent to the origin of `url` only. */
  secrets?: Readonly<Record<string, string>> | undefined;
  /** Longest time without received bytes, ms. */
  stallTimeoutMs: number;
  signal?: AbortSignal | undefined;
}

/** A response. Its body must be read or canceled. */
export interface HttpResponse {
  response: Response;
  /** Whether the response came from the origin of the request, without a redirect to another origin. */
  sameOrigin: boolean;
  /** The chunks of the body. Each chunk restarts the stall timer. @throws TransientError, HeadstartError `ABORTED`. */
  body(): AsyncGenerator<Uint8Array, void, undefined>;
  cancel(): Promise<void>;
}

/**
 * @throws TransientError if there was no response; HeadstartError `ABORTED`, `DOWNLOAD_FAILED` for invalid redirects.
 */
export async function request(options: HttpRequest): Promise<HttpResponse> {
  const { signal, stallTimeoutMs } = options;
  throwIfAborted(signal);
  const abort = new AbortController();
  const watch = new StallWatch(stallTimeoutMs, () => abort.abort());
  const stop = onAbort(signal, () => abort.abort());
  const end = () => {
    watch.stop();
    stop();
  };
  const failed = (error: unknown): HeadstartError => {
    end();
    return failureOf(error, options, watch.stalled);
  };
  try {
    const { response, sameOrigin } = await follow(options, abort.signal);
    watch.refresh();
    return {
      response,
      sameOrigin,
      async cancel() {
        end();
        await response.body?.cancel().catch(() => undefined);
      },
      async *body() {
        try {
          for await (const piece of response.body ?? []) {
            watch.refresh();
            yield piece;
          }
        } catch (error) {
          throw failed(error);
        } finally {
          end();
          abort.abort(); // ends the request if the consumer left the loop early
        }
      },
    };
  } catch (error) {
    throw failed(error);
  }
}

/** @throws the errors of {@link request}; HeadstartError `DOWNLOAD_FAILED` if the body is larger than `maxBytes`. */
export async function readSmall({ response, body }: HttpResponse, maxBytes: number): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of body()) {
    size += piece.byteLength;
    if (size > maxBytes) {
      throw new HeadstartError('DOWNLOAD_FAILED', `Expected at most ${maxBytes} bytes from ${response.url}`);
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/**
 * Throws an error if the status of the response is not 2xx.
 *
 * @param what names the resource in the message
 * @throws TransientError, HeadstartError `MODEL_NOT_FOUND`, `UNAUTHORIZED`, `DOWNLOAD_FAILED`.
 */
export function throwForStatus({ response, sameOrigin }: HttpResponse, what: string): void {
  if (response.ok) {
    return;
  }
  const { status } = response;
  // The Hub describes the error in its own header.
  const reason = response.headers.get('x-error-message') ?? response.statusText;
  const message = `${what} answered ${status}${reason ? ` (${reason})` : ''}`;
  // The signed address of a redirect may have expired. A new request makes the origin sign a new address.
  if (status === 408 || status === 429 || status >= 500 || (status === 403 && !sameOrigin)) {
    throw new TransientError(message, { retryAfterMs: retryAfterMs(response) });
  }
  if (status === 401 || status === 403) {
    throw new HeadstartError(
      'UNAUTHORIZED',
      `${message}: it may be private or gated, or it may not exist. Pass a token that has access`,
    );
  }
  throw new HeadstartError(status === 404 || status === 410 ? 'MODEL_NOT_FOUND' : 'DOWNLOAD_FAILED', message);
}

/** The wait that the header Retry-After asks for, ms. */
function retryAfterMs(response: Response): number | undefined {
  const value = response.headers.get('retry-after');
  if (value === null) {
    return undefined;
  }
  const ms = /^\d+(\.\d+)?$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

async function follow(options: HttpRequest, signal: AbortSignal): Promise<{ response: Response; sameOrigin: boolean }> {
  let url = new URL(options.url);
  const { origin } = url;
  let sameOrigin = true;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const headers = { ...options.headers, ...(sameOrigin ? options.secrets : {}) };
    const response = await fetch(url, { headers, redirect: 'manual', signal });
    const location = response.headers.get('location');
    if (response.status < 300 || response.status >= 400 || location === null) {
      return { response, sameOrigin };
    }
    await response.body?.cancel();
    const next = parseLocation(location, url);
    sameOrigin &&= next.origin === origin; // secrets are not sent again after a redirect to another origin
    url = next;
  }
  throw new HeadstartError('DOWNLOAD_FAILED', `Expected ${options.url} to redirect at most ${MAX_REDIRECTS} times`);
}

function parseLocation(location: string, base: URL): URL {
  const next = URL.canParse(location, base.href) ? new URL(location, base) : undefined;
  if (
    next === undefined ||
    !/^https?:$/.test(next.protocol) ||
    (base.protocol === 'https:' && next.protocol !== 'https:')
  ) {
    throw new HeadstartError(
      'DOWNLOAD_FAILED',
      `Expected ${base.origin} to redirect to an ${base.protocol.slice(0, -1)} address, got "${location.slice(0, 200)}"`,
    );
  }
  return next;
}

function failureOf(error: unknown, { url, signal, stallTimeoutMs }: HttpRequest, stalled: boolean): HeadstartError {
  if (signal?.aborted) {
    return abortedError(signal);
  }
  if (error instanceof HeadstartError) {
    return error;
  }
  const { message, cause } = error as Error;
  const reason =
    cause instanceof Error ? `${message} (${cause.message || (cause as NodeJS.ErrnoException).code})` : message;
  return new TransientError(
    stalled ? `${withoutQuery(url)} sent nothing for ${stallTimeoutMs} ms` : `${withoutQuery(url)}: ${reason}`,
    { cause: error },
  );
}

/** The address without its query, because the query of a signed address contains secrets. */
export function withoutQuery(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

class StallWatch {
  readonly #timer: NodeJS.Timeout;
  stalled = false;

  constructor(ms: number, onStall: () => void) {
    this.#timer = setTimeout(() => {
      this.stalled = true;
      onStall();
    }, ms);
  }

  refresh(): void {
    this.#timer.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
