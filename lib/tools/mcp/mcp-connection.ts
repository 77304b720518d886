import type { Client } from '@modelcontextprotocol/client';
import { abortedError, onAbort, orAborted } from '../../abort.js';
import { HeadstartError } from '../../errors.js';
import type { Logger } from '../../logger.js';
import { packageVersion } from '../../native/places.js';
import type { ResolvedMcpServer } from './mcp-config.js';
import { type McpPromptMessage, readPromptMessages, readResult } from './mcp-content.js';
import { type McpPromptListing, type McpToolListing, readPrompts, readTools } from './mcp-listing.js';
import { ANY_RESULT, isAnswer, listAll } from './mcp-pages.js';
import { loadClient, makeTransport } from './mcp-transport.js';

/** Time limit of a ping in ms. After a call that took too long, a ping shows whether the server still answers. */
const PING_TIMEOUT_MS = 5000;

/** The longest text of a logged error, in characters. */
const MAX_REASON_LENGTH = 1000;

/** If a listing hangs, sessions use the previous listing. They do so for this many times the duration of the hang. */
const RETRY_DELAY_FACTOR = 10;

interface Listing {
  tools: readonly McpToolListing[];
  prompts: readonly McpPromptListing[];
}

const EMPTY_LISTING: Listing = { tools: [], prompts: [] };

/**
 * The connection to one server. The first use opens the connection. If the connection is lost, the next use opens it
 * again. The listing is fetched once, and again after the server reports a change.
 */
export class McpConnection {
  readonly config: ResolvedMcpServer;
  readonly #log: Logger;
  #client: Client | undefined;
  #connecting: Promise<Client> | undefined;
  #listing: Listing | undefined;
  #outdated = true;
  /**
   * The earliest time at which to fetch the listing again, as `performance.now()`. Tool calls do not wait for this
   * time.
   */
  #retryListingAt = 0;
  /** Clients that are being closed. If a child process does not end by itself, the SDK kills it after some seconds. */
  readonly #closingClients = new Set<Promise<void>>();
  readonly #closeController = new AbortController();

  constructor(config: ResolvedMcpServer, log: Logger) {
    this.config = config;
    this.#log = log;
  }

  /** The current listing, or the last one if the server cannot be reached. */
  async listing(signal?: AbortSignal): Promise<Listing> {
    const lastListing = this.#listing;
    if (lastListing !== undefined && this.#client !== undefined && !this.#outdated) {
      return lastListing;
    }
    const fallback = lastListing ?? (this.config.required ? undefined : EMPTY_LISTING);
    if (fallback !== undefined && performance.now() < this.#retryListingAt) {
      return fallback;
    }
    const begin = performance.now();
    try {
      return await this.refresh(signal);
    } catch (error) {
      if (fallback === undefined || !HeadstartError.isInstance(error, 'MCP_FAILED')) {
        throw error;
      }
      this.#log('warn', error.message);
      this.#afterFailure(performance.now() - begin);
      return fallback;
    }
  }

  /** Postpones the next listing if this one took long. Otherwise a hanging server would delay every new session. */
  #afterFailure(ms: number): void {
    if (ms > this.config.connectTimeoutMs / 2) {
      this.#retryListingAt = performance.now() + RETRY_DELAY_FACTOR * ms;
    }
  }

  /** Fetches the listing. @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`. */
  async refresh(signal?: AbortSignal): Promise<Listing> {
    const client = await this.#connected(signal);
    this.#outdated = false;
    try {
      const { tools: hasTools, prompts: hasPrompts, resources: hasResources } = client.getServerCapabilities() ?? {};
      // A server may have tools although it announces no capability at all.
      const asksForTools = hasTools !== undefined || (hasPrompts === undefined && hasResources === undefined);
      const tools = asksForTools ? await this.#listTools(client, hasTools !== undefined, signal) : [];
      const prompts = hasPrompts === undefined ? [] : await this.#listPrompts(client, signal);
      this.#listing = { tools: this.#allowed(tools), prompts };
      return this.#listing;
    } catch (error) {
      this.#outdated = true;
      throw this.#failure('could not list its tools and prompts', error, signal);
    }
  }

  /**
   * @param isAnnounced whether the server announces tools. If not, an error only means that the server has no tools.
   */
  async #listTools(client: Client, isAnnounced: boolean, signal: AbortSignal | undefined): Promise<McpToolListing[]> {
    try {
      const entries = await listAll(client, 'tools', this.#listOptions(signal), (message) => this.#warn(message));
      return readTools(entries, (what, reason) => this.#leftOut(what, reason));
    } catch (error) {
      if (isAnnounced || !isAnswer(error)) {
        throw error;
      }
      return [];
    }
  }

  /** Lists the prompts. A failure only causes a warning, so that the tools of the server still work. */
  async #listPrompts(client: Client, signal: AbortSignal | undefined): Promise<McpPromptListing[]> {
    try {
      const entries = await listAll(client, 'prompts', this.#listOptions(signal), (message) => this.#warn(message));
      return readPrompts(entries, (what, reason) => this.#leftOut(what, reason));
    } catch (error) {
      if (!isAnswer(error)) {
        throw error;
      }
      this.#warn(`it could not list its prompts: ${reasonOf(error)}`);
      return [];
    }
  }

  #listOptions(signal: AbortSignal | undefined) {
    return { timeout: this.config.connectTimeoutMs, ...(signal && { signal }) };
  }

  #warn(message: string): void {
    this.#log('warn', `MCP server "${this.config.name}": ${message}`);
  }

  #leftOut(what: string, reason: string): void {
    this.#log('warn', `Left out ${what} of the MCP server "${this.config.name}": ${reason}`);
  }

  /**
   * Calls a tool.
   *
   * @returns the result as text
   * @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`.
   */
  async callTool(name: string, args: Record<string, unknown>, signal?: AbortSignal): Promise<string> {
    const result = await this.#use(`its tool "${name}" failed`, signal, (client, options) =>
      client.request({ method: 'tools/call', params: { name, arguments: args } }, ANY_RESULT, options),
    );
    const { text, isError } = readResult(result);
    if (isError) {
      throw new HeadstartError('MCP_FAILED', text || `The tool "${name}" failed and did not say why`);
    }
    return text;
  }

  /** @throws HeadstartError `MCP_FAILED`, `ABORTED`, `CLOSED`. */
  getPrompt(name: string, args: Record<string, string>, signal?: AbortSignal): Promise<McpPromptMessage[]> {
    return this.#use(`its prompt "${name}" failed`, signal, async (client, options) =>
      readPromptMessages(
        await client.request({ method: 'prompts/get', params: { name, arguments: args } }, ANY_RESULT, options),
      ),
    );
  }

  /** Ends the child process or closes the connection. Idempotent. */
  async close(): Promise<void> {
    this.#closeController.abort();
    await this.#connecting?.catch(() => undefined); // if #connect() fails, it closes its client itself
    if (this.#client !== undefined) {
      this.#drop(this.#client);
    }
    await Promise.all(this.#closingClients);
  }

  get #closed(): boolean {
    return this.#closeController.signal.aborted;
  }

  #closedError(cause?: unknown): HeadstartError {
    return new HeadstartError('CLOSED', `The connection to the MCP server "${this.config.name}" was closed`, { cause });
  }

  async #use<T>(
    what: string,
    signal: AbortSignal | undefined,
    call: (client: Client, options: { timeout: number; signal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    const options = { timeout: this.config.callTimeoutMs, ...(signal && { signal }) };
    for (let tries = 0; ; tries++) {
      const client = await this.#connected(signal);
      try {
        return await call(client, options);
      } catch (error) {
        if (signal?.aborted || !(await this.#isGone(client, error))) {
          throw this.#failure(what, error, signal);
        }
        if (tries > 0 || !neverArrived(error)) {
          throw this.#failure(what, error, signal);
        }
      }
    }
  }

  /** Whether a new connection is needed. Closes the connection if the server does not answer a ping. */
  async #isGone(client: Client, error: unknown): Promise<boolean> {
    if (this.#client !== client) {
      return true;
    }
    if (isAnswer(error)) {
      return false;
    }
    try {
      await client.request({ method: 'ping' }, ANY_RESULT, {
        timeout: Math.min(PING_TIMEOUT_MS, this.config.callTimeoutMs),
      });
      return false;
    } catch {
      await this.#drop(client);
      return true;
    }
  }

  #drop(client: Client): Promise<void> {
    if (this.#client === client) {
      this.#client = undefined;
    }
    const closing = client
      .close()
      .catch(() => undefined)
      .finally(() => this.#closingClients.delete(closing));
    this.#closingClients.add(closing);
    return closing;
  }

  #connected(signal?: AbortSignal): Promise<Client> {
    if (this.#closed) {
      throw this.#closedError();
    }
    if (this.#client !== undefined) {
      return Promise.resolve(this.#client);
    }
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined;
    });
    return orAborted(this.#connecting, signal);
  }

  async #connect(): Promise<Client> {
    const { name, connectTimeoutMs } = this.config;
    const onListChange = { autoRefresh: false, debounceMs: 0, onChanged: () => this.#markOutdated() };
    const { Client } = await loadClient();
    const client = new Client(
      { name: 'llama-headstart', version: packageVersion },
      { listChanged: { tools: onListChange, prompts: onListChange } },
    );
    const stderr: string[] = [];
    const transport = await makeTransport(this.config, (line) => {
      stderr.push(line);
      stderr.splice(0, stderr.length - 5);
      this.#log('debug', `MCP server "${name}": ${line}`);
    });
    try {
      await this.#within(connectTimeoutMs, () => client.connect(transport, { timeout: connectTimeoutMs }));
    } catch (error) {
      await client.close().catch(() => undefined);
      await transport.close().catch(() => undefined);
      if (this.#closed) {
        throw this.#closedError(error);
      }
      const output = stderr.length > 0 ? `; it wrote: ${stderr.join(' | ')}` : '';
      throw new HeadstartError(
        'MCP_FAILED',
        `Could not connect to the MCP server "${name}": ${reasonOf(error)}${output}`,
        { cause: error },
      );
    }
    client.onclose = () => {
      if (this.#client === client) {
        this.#client = undefined;
        if (!this.#closed) {
          this.#log('warn', `The connection to the MCP server "${name}" was lost. The next use connects again.`);
        }
      }
    };
    // The text is cut, because an error may quote a whole message.
    client.onerror = (error) => this.#warn(reasonOf(error).slice(0, MAX_REASON_LENGTH));
    this.#outdated = true;
    this.#retryListingAt = 0;
    this.#client = client;
    return client;
  }

  /** Runs `work`. Rejects after `ms` milliseconds, or as soon as this connection is closed. */
  async #within<T>(ms: number, work: () => Promise<T>): Promise<T> {
    const { signal } = this.#closeController;
    let stop = () => {};
    const failure = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => reject(new Error(`no connection within ${ms} ms`)), ms);
      const stopListening = onAbort(signal, () => reject(this.#closedError()));
      stop = () => {
        clearTimeout(timer);
        stopListening();
      };
    });
    try {
      return await (signal.aborted ? Promise.reject(this.#closedError()) : Promise.race([work(), failure]));
    } finally {
      stop();
    }
  }

  #markOutdated(): void {
    this.#outdated = true;
  }

  #allowed(tools: readonly McpToolListing[]): McpToolListing[] {
    const { name, allowedTools: wanted } = this.config;
    const missing = wanted?.filter((each) => !tools.some((tool) => tool.name === each)) ?? [];
    if (missing.length > 0) {
      this.#log('warn', `The MCP server "${name}" has no tools named ${missing.map((each) => `"${each}"`).join(', ')}`);
    }
    return tools.filter((tool) => wanted === undefined || wanted.includes(tool.name));
  }

  #failure(what: string, error: unknown, signal: AbortSignal | undefined): HeadstartError {
    if (signal?.aborted) {
      return abortedError(signal);
    }
    if (this.#closed) {
      return this.#closedError(error);
    }
    return new HeadstartError('MCP_FAILED', `MCP server "${this.config.name}": ${what}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/**
 * Whether it is certain that the server did not run the request. That is the case if nothing listened at the address,
 * or if the server did not know the HTTP session.
 */
function neverArrived(error: unknown): boolean {
  const { code, cause, status } = error as { code?: unknown; cause?: { code?: unknown }; status?: unknown };
  return status === 404 || [code, cause?.code].some((each) => each === 'ECONNREFUSED' || each === 404);
}

function reasonOf(error: unknown): string {
  const { message, cause, data } = error as Error & { data?: { status?: unknown } };
  const more = cause instanceof Error && cause.message !== '' ? ` (${cause.message})` : '';
  return typeof data?.status === 'number' ? `${message} (HTTP ${data.status})${more}` : `${message}${more}`;
}
