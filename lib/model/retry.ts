import { setTimeout as sleep } from 'node:timers/promises';
import { throwIfAborted } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { type Group, group, integer, number, type OptionsOf, type ResolvedOf } from '../option-types.js';
import { parseOptions } from '../parse-options.js';

const RETRY = {
  /**
   * Maximum number of retries in a row without progress. An attempt that receives new bytes resets the count. @default
   * 3
   */
  maxRetries: integer(0).default(3),
  /** Wait before the first retry, ms. @default 1000 */
  initialDelayMs: integer(0).default(1000),
  /** Factor by which each wait is longer than the previous one. @default 2 */
  backoffMultiplier: number(1, 100).default(2),
  /** Longest wait, ms, even if a server's Retry-After asks for more. @default 30000 */
  maxDelayMs: integer(0).default(30_000),
  /** An attempt fails if no bytes arrive for this long, ms. @default 30000 */
  stallTimeoutMs: integer(1).default(30_000),
};

/**
 * How downloads are retried after temporary failures: a failed connection, a stall, HTTP status 408, 429 or 5xx, or
 * damaged data.
 */
export interface RetryConfig extends OptionsOf<typeof RETRY> {}
export type ResolvedRetryConfig = Readonly<ResolvedOf<typeof RETRY>>;

export const RETRY_CONFIG: Group<RetryConfig, ResolvedRetryConfig> = group(RETRY);

/** @throws HeadstartError `CONFIG_INVALID`. */
export function resolveRetryConfig(config: RetryConfig = {}): ResolvedRetryConfig {
  return parseOptions(RETRY_CONFIG, config, { where: '`retryConfig`' });
}

/** A temporary failure. A retry may succeed. */
export class TransientError extends HeadstartError {
  /** The wait that the server asked for, ms. */
  readonly retryAfterMs: number | undefined;

  constructor(
    message: string,
    options: { cause?: unknown; retryAfterMs?: number | undefined; code?: 'DOWNLOAD_FAILED' | 'DOWNLOAD_CORRUPT' } = {},
  ) {
    super(options.code ?? 'DOWNLOAD_FAILED', message, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs;
  }
}

export interface RetryOptions {
  signal?: AbortSignal | undefined;
  /** Returns the greatest progress so far. An attempt that increases it resets the count of retries. */
  progress?: () => number;
  onRetry?: (message: string) => void;
}

/** @throws HeadstartError the error of the last attempt, or `ABORTED` during a wait. */
export async function withRetries<T>(
  retry: ResolvedRetryConfig,
  attempt: () => Promise<T>,
  { signal, progress = () => 0, onRetry }: RetryOptions = {},
): Promise<T> {
  let failures = 0;
  let furthest = progress();
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      throwIfAborted(signal);
      if (!(error instanceof TransientError)) {
        throw error;
      }
      failures = progress() > furthest ? 0 : failures;
      furthest = Math.max(furthest, progress());
      if (failures >= retry.maxRetries) {
        throw error;
      }
      const backoff = retry.initialDelayMs * retry.backoffMultiplier ** failures;
      const delay = Math.min(retry.maxDelayMs, Math.max(backoff, error.retryAfterMs ?? 0));
      failures++;
      onRetry?.(`${error.message}. Trying again in ${Math.round(delay)} ms`);
      await pause(delay, signal);
    }
  }
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, { ...(signal && { signal }) }).catch(() => undefined);
  throwIfAborted(signal);
}
