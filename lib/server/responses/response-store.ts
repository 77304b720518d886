import { LRUCache } from 'lru-cache';
import type { ResolvedStoredResponses } from '../server-options.js';
import type { Item } from './items.js';

/** A response that clients can continue by its id. */
export interface StoredResponse {
  /** The response as clients see it. */
  response: Item;
  /** The items of its output. */
  output: readonly Item[];
  /** The whole conversation, with the output. */
  items: readonly Item[];
  /** Size of the conversation and the response as JSON. */
  bytes: number;
}

/** Keeps the newest responses of each tenant in memory, for a limited time. */
export class ResponseStore {
  readonly #limits: ResolvedStoredResponses;
  readonly #tenants = new Map<string | undefined, LRUCache<string, StoredResponse>>();

  constructor(limits: ResolvedStoredResponses) {
    this.#limits = limits;
  }

  /** A response too large for the store is not kept. */
  add(tenant: string | undefined, id: string, stored: StoredResponse): void {
    const { maxEntries, maxBytes, maxAgeMs } = this.#limits;
    if (maxEntries > 0 && maxBytes > 0 && maxAgeMs > 0) {
      this.#responsesOf(tenant).set(id, stored, { size: stored.bytes });
    }
  }

  find(tenant: string | undefined, id: string): StoredResponse | undefined {
    return this.#tenants.get(tenant)?.get(id);
  }

  /** @returns whether there was such a response */
  delete(tenant: string | undefined, id: string): boolean {
    return this.#tenants.get(tenant)?.delete(id) ?? false;
  }

  #responsesOf(tenant: string | undefined): LRUCache<string, StoredResponse> {
    const { maxEntries: max, maxBytes: maxSize, maxAgeMs: ttl } = this.#limits;
    const responses =
      this.#tenants.get(tenant) ??
      new LRUCache<string, StoredResponse>({ max, maxSize, ttl, updateAgeOnGet: true, ttlAutopurge: true });
    this.#tenants.set(tenant, responses);
    return responses;
  }
}
