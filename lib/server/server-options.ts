// The options of the HTTP handler and of the listener.

import type { Logger } from '../logger.js';
import {
  boolean,
  callable,
  type Group,
  group,
  integer,
  list,
  type OptionsOf,
  type ResolvedOf,
  size,
  strings,
  text,
} from '../option-types.js';

const API_KEY = {
  /** The secret that a client sends as `Authorization: Bearer KEY` or as `x-api-key: KEY`. */
  key: text(),
  /** The tenant of requests with this key. Different tenants never share cached tokens. @default none */
  tenant: text().optional(),
  /** Whether requests with this key may change the cache of templates. @default false */
  admin: boolean().default(false),
};

/** A key that lets clients in. */
export interface ApiKey extends OptionsOf<typeof API_KEY> {}

const STORED_RESPONSES = {
  /** Maximum number of responses of each tenant, at most 1,000,000. 0 keeps none. @default 1000 */
  maxEntries: integer(0, 1_000_000).default(1000),
  /**
   * Maximum size of each tenant's responses as JSON, in bytes. A response counts with its whole conversation.
   * @default 67108864 (64 MiB)
   */
  maxBytes: size().default(64 * 1024 ** 2),
  /** Time that a response is kept after its last use, in ms. @default 86400000 (a day) */
  maxAgeMs: integer(0, 2 ** 31 - 1).default(24 * 60 * 60 * 1000),
};

/** How many responses the server keeps, so that clients can continue them with `previous_response_id`. */
export interface StoredResponsesOptions extends OptionsOf<typeof STORED_RESPONSES> {}

export type ResolvedStoredResponses = ResolvedOf<typeof STORED_RESPONSES>;

const STORED_RESPONSES_OPTIONS = group(STORED_RESPONSES);

const HANDLER = {
  /** If there are keys, each request needs one of them. @default none: every request is let in */
  apiKeys: list(group(API_KEY), 'an array of API keys').optional(),
  /**
   * Names that clients may use for this server in the `Host` header, without the port. Other names are refused with
   * status 403, so a web page cannot reach the server by a name of its own (DNS rebinding). @default `localhost`,
   * `127.0.0.1` and `::1`; any name if there are API keys
   */
  allowedHosts: strings().optional(),
  /** Origins of web pages that may call the server, for example `https://chat.example`. @default none */
  allowedOrigins: strings().optional(),
  /** Largest body of a request, in bytes. Larger bodies are refused with status 413. @default 33554432 (32 MiB) */
  maxBodyBytes: size().default(32 * 1024 ** 2),
  /**
   * Maximum number of requests that are being answered or wait for a sequence. Further requests are refused with status
   * 429.
   * @default 64
   */
  maxRequests: integer(1, 2 ** 16).default(64),
  /**
   * Interval of keep-alive events while a stream has no other event, in ms. Clients cut a connection without events.
   * @default 5000
   */
  keepAliveMs: integer(10, 60_000).default(5000),
  /**
   * Whether to remove or move text of known clients that differs between their sessions, so that their sessions share
   * a prefix. The response names the rules that applied. @default true
   */
  normalizers: boolean().default(true),
  /**
   * Whether to move text with directories, dates, the git state and the user's name to the end of the system prompt of
   * known clients, after the tools. Sessions in other directories, on other days and of other users then share the
   * tokens in front of this text. The response names the rules that applied. @default false
   */
  portableHeads: boolean().default(false),
  /** The responses that `/v1/responses` keeps in memory. @default all defaults */
  storedResponses: (STORED_RESPONSES_OPTIONS as Group<StoredResponsesOptions, ResolvedStoredResponses>).prefault({}),
  /**
   * Whether `/headstart/v1/requests` shows a few tokens of prompts: the text at the first difference from the nearest
   * stored prefix. @default false
   */
  showPromptText: boolean().default(false),
  /** Gets a line for each failure of the server itself. Lines contain no prompts and no keys. @default none */
  logger: callable<Logger>().optional(),
};

/** Options of {@link createHandler}. */
export interface HandlerOptions extends OptionsOf<typeof HANDLER> {}

export const HANDLER_OPTIONS = group(HANDLER);
export type ResolvedHandlerOptions = ReturnType<typeof HANDLER_OPTIONS.parse>;

const DAY_MS = 24 * 60 * 60 * 1000;

/** A time limit in ms. 0 is refused, because node:http takes 0 as no limit. Timers can wait at most 24 days. */
const timeout = () => integer(1, DAY_MS);

const LISTEN = {
  /** The address to listen on. Any address besides loopback needs API keys. @default '127.0.0.1' */
  host: text().default('127.0.0.1'),
  /** The port; 0 chooses a free one. @default 8080 */
  port: integer(0, 65_535).default(8080),
  /**
   * Maximum time that `close` waits for running requests, in ms. Then `close` aborts the other requests. @default 30000
   */
  closeTimeoutMs: integer(0, DAY_MS).default(30_000),
  /** Maximum time until the headers of a request have arrived, in ms. @default 60000 */
  headersTimeoutMs: timeout().default(60_000),
  /** Maximum time until a whole request has arrived, with its body, in ms. Replies may take longer. @default 300000 */
  requestTimeoutMs: timeout().default(300_000),
  /** Maximum time between two requests on one connection, in ms. @default 120000 */
  idleTimeoutMs: timeout().default(120_000),
  /**
   * Maximum time in which a client reads nothing of the bytes that the server has for it, in ms. Then the server closes
   * the connection and aborts the reply. @default 120000
   */
  readTimeoutMs: timeout().default(120_000),
};

/** Options of {@link listen}. */
export interface ListenOptions extends OptionsOf<typeof LISTEN> {}

export const LISTEN_OPTIONS = group(LISTEN);
export type ResolvedListenOptions = ReturnType<typeof LISTEN_OPTIONS.parse>;
