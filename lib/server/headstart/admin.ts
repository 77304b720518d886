import type { Client } from '../http/access.js';
import { HttpError } from '../http/http-error.js';
import type { ResolvedHandlerOptions } from '../server-options.js';

/**
 * Refuses a client that may not change the cache of templates.
 *
 * @throws HttpError 403.
 */
export function requireAdmin({ isAdmin }: Client, { apiKeys }: ResolvedHandlerOptions): void {
  if (!isAdmin) {
    const message =
      apiKeys === undefined
        ? 'This server has no API keys, so nobody may change its cache: pass `apiKeys` with an admin key to `createHandler`'
        : 'Expected an admin key, because this request changes the cache';
    throw new HttpError(403, 'admin_key_required', message);
  }
}

/**
 * Refuses a client that may not read the list of templates, which has the templates of all tenants.
 *
 * @throws HttpError 403.
 */
export function requireReader({ isAdmin }: Client, { apiKeys = [] }: ResolvedHandlerOptions): void {
  if (!isAdmin && apiKeys.some(({ tenant }) => tenant !== undefined)) {
    const message =
      'Expected an admin key, because the server has several tenants and the response shows the templates of all of them';
    throw new HttpError(403, 'admin_key_required', message);
  }
}
