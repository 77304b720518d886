// Decides whether the server accepts a request, and for which client.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { ResolvedHandlerOptions } from '../server-options.js';
import { HttpError } from './http-error.js';

/** Who sent a request. */
export interface Client {
  /** Different tenants never share cached tokens. */
  tenant: string | undefined;
  /** Whether the client may change the cache of templates. */
  isAdmin: boolean;
}

const LOOPBACK = ['localhost', '127.0.0.1', '::1'];

/** Lets clients in by their host, origin and key. */
export class AccessControl {
  readonly #hosts: ReadonlySet<string> | undefined;
  readonly #origins: ReadonlySet<string>;
  readonly #keys: readonly { digest: Buffer; client: Client }[] | undefined;

  constructor({ apiKeys, allowedHosts, allowedOrigins = [] }: ResolvedHandlerOptions) {
    const hosts = allowedHosts ?? (apiKeys === undefined ? LOOPBACK : undefined);
    this.#hosts = hosts && new Set(hosts.map((host) => host.toLowerCase()));
    this.#origins = new Set(allowedOrigins);
    this.#keys = apiKeys?.map(({ key, tenant, admin: isAdmin }) => ({
      digest: digestOf(key),
      client: { tenant, isAdmin },
    }));
  }

  /** @throws HttpError 401, 403. */
  admit({ headers, url }: Request): Client {
    this.#requireHost(headers.get('host') ?? new URL(url).host);
    this.#requireOrigin(headers);
    return this.#authenticate(headers);
  }

  #requireHost(host: string): void {
    const name = hostName(host);
    if (this.#hosts !== undefined && !this.#hosts.has(name)) {
      throw new HttpError(403, 'host_not_allowed', `The host "${name}" is not allowed: add it to \`allowedHosts\``);
    }
  }

  #requireOrigin(headers: Headers): void {
    const origin = headers.get('origin');
    const isForeign = origin === null ? headers.get('sec-fetch-site') === 'cross-site' : !this.#origins.has(origin);
    if (isForeign) {
      throw new HttpError(403, 'origin_not_allowed', 'Web pages of this origin may not call the server');
    }
  }

  #authenticate(headers: Headers): Client {
    if (this.#keys === undefined) {
      return { tenant: undefined, isAdmin: false };
    }
    const digest = digestOf(sentKey(headers));
    const known = this.#keys.filter((each) => timingSafeEqual(each.digest, digest)); // compares with all keys
    if (known[0] === undefined) {
      throw new HttpError(401, 'invalid_api_key', 'Expected a valid API key', {
        headers: { 'www-authenticate': 'Bearer' },
      });
    }
    return known[0].client;
  }
}

function sentKey(headers: Headers): string {
  const [, bearer] = /^bearer\s+(.+)$/i.exec(headers.get('authorization') ?? '') ?? [];
  return bearer?.trim() ?? headers.get('x-api-key') ?? '';
}

function digestOf(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}

/** The name in a `Host` header, without the port and without the brackets of an IPv6 address. */
function hostName(host: string): string {
  const [, ipv6] = /^\[(.*)\](?::\d+)?$/.exec(host) ?? [];
  return (ipv6 ?? host.replace(/:\d+$/, '')).toLowerCase();
}
