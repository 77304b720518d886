import { eitherSignal, throwIfAborted } from '../abort.js';
import type { TemplateCacheStats } from '../cache/statistics.js';
import { TemplateCache, type TemplateOptions } from '../cache/template-cache.js';
import { logEvents } from '../diagnostics/debug-log.js';
import { startTelemetry } from '../diagnostics/telemetry.js';
import { HeadstartError } from '../errors.js';
import { forgivingLogger, type Logger, limitedLogger, stderrLogger } from '../logger.js';
import { LORAS, type LoraConfig, resolveLoras } from '../model/lora-files.js';
import { resolveModel } from '../model/resolve.js';
import { selectGpu } from '../native/addon.js';
import { setNativeLogger, unsetNativeLogger } from '../native/log.js';
import type { Model } from '../native/model.js';
import { abortSignal, group, type OptionsOf, text } from '../option-types.js';
import { parseOptions } from '../parse-options.js';
import {
  type Completion,
  type CompletionOptions,
  type CompletionPart,
  complete,
  streamComplete,
} from '../session/completion.js';
import { readConversation } from '../session/conversation.js';
import type { ConversationMessage } from '../session/message-input.js';
import { findTemplate, openSession, restoreSession, type SessionHost } from '../session/open-session.js';
import { OpenSessions } from '../session/open-sessions.js';
import type { Session } from '../session/session.js';
import { type SessionOptions, TEMPLATE } from '../session/session-options.js';
import type { McpServers } from '../tools/mcp/mcp-servers.js';
import { resolveAgentOptions } from './agent-config.js';
import type { AgentHealth } from './agent-health.js';
import type { AgentOptions } from './agent-options.js';
import { type AgentParts, closeAll, openParts } from './agent-parts.js';

const TEMPLATE_OPTIONS = group({ ...TEMPLATE, tenant: text().optional() });
const COUNT_OPTIONS = group(TEMPLATE);
const SET_LORAS = {
  /** Ends it with `ABORTED`; nothing changed then. */
  signal: abortSignal().optional(),
};
const SET_LORAS_OPTIONS = group(SET_LORAS);
/** Adapters, in a group so that messages name them. */
const LORA_LIST = group({ loras: LORAS });

/**
 * A model with its context and template cache, ready for sessions.
 *
 * @example
 * const agent = await AgentServer.initialize({ model: { source: 'model.gguf' }, systemPrompt: 'You are terse.' });
 * const session = await agent.createSession();
 * console.log((await session.send('What is a KV cache?')).text);
 * await agent.close();
 */
export class AgentServer {
  /** Look into the template cache, warm it, tidy it up. */
  readonly templateCache: TemplateCache;
  readonly #parts: AgentParts & SessionHost;
  readonly #sessions = new OpenSessions();
  readonly #since = performance.now();
  readonly #stopLogging: () => void;
  /** Fires when the agent is closed. */
  readonly #ending = new AbortController();
  #closing: Promise<void> | undefined;

  /** @param quiet ends what the agent's logger gets of llama.cpp */
  private constructor(parts: AgentParts, quiet: () => void) {
    this.#parts = {
      ...parts,
      requireOpen: () => this.#requireOpen(),
      onOpened: (session, sequence) => this.#sessions.add(session, sequence),
      onClosed: (session) => this.#sessions.delete(session),
    };
    const { cache, engine, model, lock } = parts;
    const find = async (template: TemplateOptions) => {
      this.#requireOpen();
      parseOptions(TEMPLATE_OPTIONS, template, { where: 'the template' });
      return (await findTemplate(this.#parts, template)).boundary;
    };
    this.templateCache = new TemplateCache({ cache, engine, model, lock, find });
    const isMine = (id: string) => this.#sessions.has(id);
    const stopEvents = parts.debugLogger && logEvents(parts.debugLogger, isMine);
    this.#stopLogging = () => {
      stopEvents?.();
      quiet();
    };
  }

  /**
   * Loads the model, makes its context and opens the template cache.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` or `TOKEN_OUT_OF_RANGE` (`sampling`), `SCHEMA_INVALID`, `MCP_FAILED`,
   *   `ADDON_NOT_FOUND`, `ADDON_LOADED`, `MODEL_NOT_FOUND`, `MODEL_INVALID`, `UNSUPPORTED_MODEL`, `LORA_NOT_FOUND`, `LORA_INVALID`,
   *   `CONTEXT_FAILED`, `OUT_OF_MEMORY`, `NOT_REPRODUCIBLE`, `CACHE_DIR_SHARED`, `ABORTED`, and what {@link resolveModel} throws.
   */
  static async initialize(options: AgentOptions): Promise<AgentServer> {
    const config = resolveAgentOptions(options);
    throwIfAborted(config.signal);
    selectGpu(config.model.gpu);
    const logger = loggerOf(config.logger, config.debug);
    const quiet = logToNative(logger, config.debug);
    try {
      await startTelemetry();
      return new AgentServer(await openParts({ ...config, logger }), quiet);
    } catch (error) {
      quiet();
      throw error;
    }
  }

  /** The loaded model. */
  get model(): Model {
    return this.#parts.model;
  }

  /** Its MCP servers: what tools and prompts they offer now. */
  get mcp(): McpServers {
    return this.#parts.mcp;
  }

  /** Tokens that one session may hold. */
  get contextSize(): number {
    return this.#parts.contextSize;
  }

  /**
   * Opens a session with its template ready in the KV cache. Any number may be open; `nSeqMax` of them hold a sequence.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (`messages`, `toolChoice`, `sampling`), `SCHEMA_INVALID`,
   *   `QUEUE_FULL`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`, `NO_CHAT_TEMPLATE`, and what rendering and decoding throw.
   */
  async createSession(options: SessionOptions = {}): Promise<Session> {
    return openSession(this.#parts, options);
  }

  /**
   * Opens a session that {@link Session.save} wrote, under its old id, with its messages, and its KV state where that was
   * kept and still fits; else its conversation is read again at the next turn. Tools are the saved ones, run by the agent's
   * of the same name, and those of MCP servers by the same server's. `options` win over what the file says; `tools` are the
   * session's own, beside which it keeps those of servers.
   *
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT`, `ENTRY_FOREIGN`, `READ_FAILED`, `INVALID_ARGUMENT` (no path,
   *   or that session is open), and as {@link createSession}.
   */
  async restoreSession(path: string, options: Omit<SessionOptions, 'messages'> = {}): Promise<Session> {
    this.#requireOpen();
    return restoreSession(this.#parts, path, options, (id) => this.#sessions.reserve(id));
  }

  /**
   * Goes on from a text, without a chat template.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `CONTEXT_FULL`, `QUEUE_FULL`, `ABORTED`, `CLOSED`, and what tokenising, sampling and
   *   decoding throw.
   */
  async complete(prompt: string, options: CompletionOptions = {}): Promise<Completion> {
    this.#requireOpen();
    return complete(this.#parts, this.#parts.defaults.sampling, prompt, options);
  }

  /**
   * {@link complete}, as it is generated: parts of `text-delta`, and a `finish` at the end. One that fails yields a `finish` with
   * `aborted` or `error` and then throws.
   *
   * @throws HeadstartError as {@link complete}.
   */
  async *streamComplete(
    prompt: string,
    options: CompletionOptions = {},
  ): AsyncGenerator<CompletionPart, void, undefined> {
    this.#requireOpen();
    yield* streamComplete(this.#parts, this.#parts.defaults.sampling, prompt, options);
  }

  /**
   * Counts the tokens of a text, or of the prompt for a conversation: with system prompt, tools and the beginning of the reply.
   * A system message may come first, as in the `messages` of {@link createSession}.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `CONFIG_INVALID` (the options), `SCHEMA_INVALID`, `CONTEXT_FULL` (the template alone
   *   fills it), `CLOSED`, and what rendering and tokenising throw.
   */
  async countTokens(
    input: string | readonly ConversationMessage[],
    options: Pick<SessionOptions, 'systemPrompt' | 'tools'> = {},
  ): Promise<number> {
    this.#requireOpen();
    parseOptions(COUNT_OPTIONS, options, { where: 'the options' });
    if (typeof input === 'string') {
      return (await this.#parts.renderer.plainTokens(input)).length;
    }
    const { systemPrompt, messages } = readConversation(input, options.systemPrompt);
    const { source } = await findTemplate(this.#parts, { ...options, systemPrompt });
    return (await this.#parts.renderer.prompt(source, messages)).tokens.length;
  }

  /**
   * Applies these LoRA adapters, and no others, once no turn computes; turns and sessions that begin meanwhile wait. Open sessions
   * go on with the new adapters from their messages, and so does a turn whose tools were running, or whose stream nobody has read
   * from for a second.
   *
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID`, `INVALID_ARGUMENT`, `ABORTED`, `CLOSED`, and what
   *   {@link resolveModel} throws; nothing changed then.
   */
  async setLoras(loras: readonly LoraConfig[], options: OptionsOf<typeof SET_LORAS> = {}): Promise<void> {
    parseOptions(LORA_LIST, { loras }, { where: 'the arguments', code: 'INVALID_ARGUMENT' });
    parseOptions(SET_LORAS_OPTIONS, options, { where: 'the options', code: 'INVALID_ARGUMENT' });
    this.#requireOpen();
    const signal = eitherSignal(this.#ending.signal, options.signal);
    try {
      const files = await resolveLoras(loras, { ...this.#parts.fetching, signal });
      await this.#parts.adapters.set(files, signal);
    } catch (error) {
      throw this.#ending.signal.aborted
        ? new HeadstartError('CLOSED', 'The agent was closed meanwhile', { cause: error })
        : error;
    }
  }

  /** The specification's name for `templateCache.stats()`. */
  getTemplateCacheStats(): TemplateCacheStats {
    return this.templateCache.stats();
  }

  /** How the agent does right now: queue, sessions, KV cells, tokens per second. */
  health(): AgentHealth {
    const { engine, path } = this.#parts;
    return {
      status: this.#closing === undefined ? 'ok' : 'closing',
      uptimeMs: performance.now() - this.#since,
      model: path,
      openSessions: this.#sessions.size,
      ...engine.status(),
      templateCache: this.templateCache.stats(),
    };
  }

  /** Resolves when every template prefilled so far is on disk, or has failed to get there. */
  flush(): Promise<void> {
    return this.templateCache.flush();
  }

  /** Ends turns that run, finishes saves, frees context and model. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#closeParts();
    return this.#closing;
  }

  /** As {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeParts(): Promise<void> {
    this.#ending.abort();
    const { cache, engine, model, checkpoints, mcp } = this.#parts;
    await closeAll([
      () => Promise.all(this.#sessions.all().map((session) => session.close())),
      () => mcp.close(),
      () => checkpoints.clear(),
      () => cache.close(),
      () => engine.close(),
      () => model.close(),
      () => this.#stopLogging(),
    ]);
  }

  #requireOpen(): void {
    if (this.#closing !== undefined) {
      throw new HeadstartError('CLOSED', 'Expected an open agent, but it was closed');
    }
  }
}

/** `debug` is never without effect: where nobody takes its lines, they go to standard error. */
function loggerOf(given: Logger | undefined, debug: boolean): Logger | undefined {
  const logger = given ?? (debug ? stderrLogger : undefined);
  return logger && limitedLogger(forgivingLogger(logger), debug ? 'debug' : 'warn');
}

/**
 * llama.cpp compares the training length with the cells of a unified KV cache, which many sessions share. The agent compares it with
 * what one session may hold: see `trainingLengthWarning`.
 */
const FALSE_ALARM = /n_ctx_seq \(\d+\) > n_ctx_train \(\d+\)/;

/** @returns how to stop it, once nobody has it that logs later */
function logToNative(logger: Logger | undefined, debug: boolean): () => void {
  if (logger === undefined) {
    return () => {};
  }
  const native: Logger = (level, message) => {
    if (!FALSE_ALARM.test(message)) {
      logger(level, message);
    }
  };
  setNativeLogger(native, { level: debug ? 'info' : 'warn' });
  return () => unsetNativeLogger(native);
}
