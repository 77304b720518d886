// One HTTP request: redirects followed by hand, so that secrets stay with the origin they are for.

import { abortedError, onAbort, throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { TransientError } from './retry.js';

const MAX_REDIRECTS = 10;

export interface HttpRequest {
  url: string;
  /** Sent to whoever the request ends at. */
  headers?: Readonly<Record<string, string>>;
  /** Sent to the origin of `url` only. */
  secrets?: Readonly<Record<string, string>> | undefined;
  /** Nothing received for so long, ms, is a failure. */
  stallTimeoutMs: number;
  signal?: AbortSignal | undefined;
}

/** An answer whose body has to be read, or cancelled. */
export interface HttpAnswer {
  response: Response;
  /** Whether it came from the origin that was asked. */
  sameOrigin: boolean;
  /** The body, with the stall timer running. @throws TransientError, HeadstartError `ABORTED`. */
  body(): AsyncGenerator<Uint8Array, void, undefined>;
  cancel(): Promise<void>;
}

/**
 * @throws TransientError where no answer came; HeadstartError `ABORTED`, `DOWNLOAD_FAILED` for redirects that lead nowhere.
 */
export async function request(options: HttpRequest): Promise<HttpAnswer> {
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
          abort.abort(); // who left the loop early wants no more of it
        }
      },
    };
  } catch (error) {
    throw failed(error);
  }
}

/** Reads an answer that must be small. @throws as {@link request}; HeadstartError `DOWNLOAD_FAILED` when it is not. */
export async function readSmall(answer: HttpAnswer, maxBytes: number): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of answer.body()) {
    size += piece.byteLength;
    if (size > maxBytes) {
      throw new HeadstartError('DOWNLOAD_FAILED', `Expected at most ${maxBytes} bytes from ${answer.response.url}`);
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

/**
 * @throws TransientError, HeadstartError `MODEL_NOT_FOUND`, `UNAUTHORIZED`, `DOWNLOAD_FAILED`.
 */
export function throwForStatus(answer: HttpAnswer, what: string): void {
  const { response, sameOrigin } = answer;
  if (response.ok) {
    return;
  }
  const { status } = response;
  // The Hub says more in its own headers.
  const reason = response.headers.get('x-error-message') ?? response.statusText;
  const message = `${what} answered ${status}${reason ? ` (${reason})` : ''}`;
  // A signed address that a redirect led to may have run out; asked again, the origin signs a new one.
  if (status === 408 || status === 429 || status >= 500 || (status === 403 && !sameOrigin)) {
    throw new TransientError(message, { retryAfterMs: retryAfterMs(response) });
  }
  if (status === 401 || status === 403) {
    throw new HeadstartError(
      'UNAUTHORIZED',
      `${message}: it is private, gated or not there. Give a token that may read it`,
    );
  }
  throw new HeadstartError(status === 404 || status === 410 ? 'MODEL_NOT_FOUND' : 'DOWNLOAD_FAILED', message);
}

/** What Retry-After asks for, ms. */
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
    sameOrigin &&= next.origin === origin; // once away, they never come back
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

/** Signed addresses carry secrets in their query. */
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
