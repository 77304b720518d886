import type { PromptPlace } from '../../cache/cache-report.js';
import type { Client } from '../http/access.js';
import type { FinishedReply } from '../http/reply-events.js';
import type { ResolvedHandlerOptions } from '../server-options.js';

/** A request that was answered. Without `showPromptText`, it has no text of its prompt and reply. */
export interface RecentRequest extends Omit<FinishedReply, 'cache'> {
  /** When the reply ended, in the form of ISO 8601. */
  endedAt: string;
  /** The path of the endpoint. */
  endpoint: string;
  /** What the prompt reused, and why not more. */
  cache: Omit<FinishedReply['cache'], 'difference'> & { difference?: PromptPlace | Omit<PromptPlace, 'text'> };
}

/** Number of requests that are kept for each tenant. */
const MAX_REQUESTS = 100;

/** Keeps the reports of the newest requests of each tenant. Tenants come from keys, so their number is small. */
export class RecentRequests {
  readonly #byTenant = new Map<string | undefined, RecentRequest[]>();
  readonly #showsText: boolean;

  constructor({ showPromptText }: ResolvedHandlerOptions) {
    this.#showsText = showPromptText;
  }

  add({ finishReason, usage, cache }: FinishedReply, endpoint: string, { tenant }: Client): void {
    const requests = this.#byTenant.get(tenant) ?? [];
    this.#byTenant.set(tenant, requests);
    const { difference, ...report } = cache;
    const place = difference && { difference: this.#showsText ? difference : withoutTextOf(difference) };
    const endedAt = new Date().toISOString();
    requests.push({ endedAt, endpoint, finishReason, usage, cache: { ...report, ...place } });
    if (requests.length > MAX_REQUESTS) {
      requests.shift();
    }
  }

  /** The requests of a client's tenant, the newest first. */
  of({ tenant }: Client): RecentRequest[] {
    return [...(this.#byTenant.get(tenant) ?? [])].reverse();
  }
}

function withoutTextOf({ text: _, ...place }: PromptPlace): Omit<PromptPlace, 'text'> {
  return place;
}
