import { throwIfAborted } from '../abort.js';
import { FORGET_OPTIONS, type ForgetOptions, type ForgetReport } from '../cache/forget-options.js';
import type { TemplateCacheStats } from '../cache/statistics.js';
import { TemplateCache, type TemplateOptions } from '../cache/template-cache.js';
import { type ChatRequest, chat, countPromptTokens, renderPromptText } from '../chat/chat.js';
import { findTemplate } from '../chat/chat-host.js';
import type { ChatModel } from '../chat/chat-model.js';
import { type Completion, type CompletionOptions, type CompletionPart, streamComplete } from '../chat/completion.js';
import { comparePrompts, explainRequest, type PromptComparison, type RequestExplanation } from '../chat/explain.js';
import type { ConversationMessage } from '../chat/message-input.js';
import { logEvents } from '../diagnostics/debug-log.js';
import { startTelemetry } from '../diagnostics/telemetry.js';
import { HeadstartError } from '../errors.js';
import type { ReplyStream } from '../generate/reply-stream.js';
import type { SampledReplies } from '../generate/sampled-replies.js';
import type { Reply, StreamPart } from '../generate/stream-parts.js';
import { isObject } from '../json.js';
import { LORAS, type LoraConfig, resolveLoras } from '../model/lora-files.js';
import { resolveModel } from '../model/resolve-model.js';
import { selectGpu } from '../native/addon.js';
import type { Model } from '../native/model.js';
import { abortSignal, group, type OptionsOf, text } from '../option-types.js';
import { parseOptions } from '../parse-options.js';
import { type CountOptions, countTokens } from '../session/count-tokens.js';
import { openSession, restoreSession, type SessionHost } from '../session/open-session.js';
import { OpenSessions } from '../session/open-sessions.js';
import type { Session } from '../session/session.js';
import { type SessionOptions, TEMPLATE } from '../session/session-options.js';
import type { McpServers } from '../tools/mcp/mcp-servers.js';
import type { Schema, SchemaValue } from '../tools/schemas/schema.js';
import { resolveAgentOptions } from './agent-config.js';
import type { AgentHealth } from './agent-health.js';
import { loggerOf, receiveNativeLog } from './agent-logger.js';
import type { AgentOptions } from './agent-options.js';
import { type AgentParts, closeAll, openParts } from './agent-parts.js';
import { Lifetime } from './lifetime.js';

const TEMPLATE_OPTIONS = group({ ...TEMPLATE, tenant: text().optional() });
const WITH_SIGNAL = {
  /** Aborts the call with `ABORTED`. Nothing has changed then. @default none */
  signal: abortSignal().optional(),
};
const WITH_SIGNAL_OPTIONS = group(WITH_SIGNAL);
/** The adapters in a group, so that error messages name the option `loras`. */
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
export class AgentServer implements ChatModel {
  /** Inspects, warms, prunes and clears the template cache. */
  readonly templateCache: TemplateCache;
  readonly #parts: AgentParts & SessionHost;
  readonly #sessions = new OpenSessions();
  readonly #lifetime = new Lifetime();
  readonly #stopLogging: () => void;

  /** @param stopNativeLog stops sending llama.cpp's log to the agent's logger */
  private constructor(parts: AgentParts, stopNativeLog: () => void) {
    this.#parts = {
      ...parts,
      requireOpen: () => this.#lifetime.requireOpen(),
      onOpened: (session, sequence) => this.#sessions.add(session, sequence),
      onClosed: (session) => this.#sessions.delete(session),
    };
    const { cache, engine, model, lock } = parts;
    const find = async (template: TemplateOptions) => {
      this.#lifetime.requireOpen();
      parseOptions(TEMPLATE_OPTIONS, template, { where: 'the template' });
      return (await findTemplate(this.#parts, template)).boundary;
    };
    this.templateCache = new TemplateCache({ cache, engine, model, lock, find });
    const isOpen = (id: string) => this.#sessions.has(id);
    const stopEvents = parts.debugLogger && logEvents(parts.debugLogger, isOpen);
    this.#stopLogging = () => {
      stopEvents?.();
      stopNativeLog();
    };
  }

  /**
   * Loads the model, creates its context and opens the template cache.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` or `TOKEN_OUT_OF_RANGE` (`sampling`), `SCHEMA_INVALID`,
   *   `MCP_FAILED`, `ADDON_NOT_FOUND`, `ADDON_LOADED`, `MODEL_NOT_FOUND`, `MODEL_INVALID`, `UNSUPPORTED_MODEL`,
   *   `LORA_NOT_FOUND`, `LORA_INVALID`, `CONTEXT_FAILED`, `OUT_OF_MEMORY`, `NOT_REPRODUCIBLE`, `CACHE_DIR_SHARED`,
   *   `ABORTED`, and the codes of {@link resolveModel}.
   */
  static async initialize(options: AgentOptions): Promise<AgentServer> {
    const config = resolveAgentOptions(options);
    throwIfAborted(config.signal);
    selectGpu(config.model.gpu);
    const logger = loggerOf(config.logger, config.debug);
    const stopNativeLog = receiveNativeLog(logger, config.debug);
    try {
      await startTelemetry();
      return new AgentServer(await openParts({ ...config, logger }), stopNativeLog);
    } catch (error) {
      stopNativeLog();
      throw error;
    }
  }

  /** The name of the model, as clients see it. See the option `model.id`. */
  get id(): string {
    return this.#parts.id;
  }

  /** The loaded model. */
  get model(): Model {
    return this.#parts.model;
  }

  /** The MCP servers and their current tools and prompts. */
  get mcp(): McpServers {
    return this.#parts.mcp;
  }

  /** @internal The replies of this agent, as they were sampled. */
  get sampledReplies(): SampledReplies {
    return this.#parts.sampledReplies;
  }

  /** The chat template (Jinja) in use. Empty if the model has none. */
  get chatTemplate(): string {
    return this.#parts.renderer.chatTemplate;
  }

  /** Maximum number of tokens that one session may hold. */
  get contextSize(): number {
    return this.#parts.contextSize;
  }

  /**
   * Opens a session with its template in the KV cache. Any number of sessions may be open. At most `nSeqMax` of them
   * hold a sequence.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `INVALID_ARGUMENT` (`messages`, `toolChoice`, `sampling`),
   *   `SCHEMA_INVALID`, `QUEUE_FULL`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`, `NO_CHAT_TEMPLATE`, and the codes of
   *   rendering and decoding.
   */
  async createSession(options: SessionOptions = {}): Promise<Session> {
    return openSession(this.#parts, options);
  }

  /**
   * Opens a session that {@link Session.save} wrote, with its old id and messages. If its KV state was saved and fits
   * the model, the session continues from this state. Otherwise the next turn prefills the conversation.
   *
   * A saved tool runs the agent's tool of the same name, and a saved tool of an MCP server runs the tool of that
   * server. The fields of `options` override the saved options. The option `tools` replaces the saved tools, except
   * those of MCP servers.
   *
   * @throws HeadstartError `ENTRY_MISSING`, `ENTRY_CORRUPT`, `ENTRY_FOREIGN`, `READ_FAILED`, `INVALID_ARGUMENT` (no
   *   path, or that session is open), and the codes of {@link createSession}.
   */
  async restoreSession(path: string, options: Omit<SessionOptions, 'messages'> = {}): Promise<Session> {
    this.#lifetime.requireOpen();
    return restoreSession(this.#parts, path, options, (id) => this.#sessions.reserve(id));
  }

  /**
   * Answers a conversation that the program keeps: each request has all messages. The request starts from the longest
   * prefix that this agent knows from its templates, sessions and earlier requests of the same tenant.
   *
   * The request starts when the stream is iterated or its `result` is awaited.
   *
   * @example
   * const messages = [{ role: 'user', content: 'What is a KV cache?' }];
   * const { text } = await agent.chat({ messages }).result;
   * messages.push({ role: 'assistant', content: text }, { role: 'user', content: 'Who invented it?' });
   * const { usage } = await agent.chat({ messages }).result; // usage.cachedInputTokens counts the first turn
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `CONTEXT_FULL`, `QUEUE_FULL`, `CLOSED`, `ABORTED`,
   *   `REPLY_INVALID` (with `responseFormat`), and the codes of rendering, sampling and decoding.
   */
  chat<S extends Schema>(request: ChatRequest<S>): ReplyStream<StreamPart, Reply<SchemaValue<S>>> {
    this.#lifetime.requireOpen();
    return chat(this.#parts, request, this.#lifetime.signal);
  }

  /**
   * Explains what a request of {@link chat} would reuse if it came now, and why not more. With two requests, explains
   * where their prompts part. The call decodes nothing, needs no sequence, and does not count as a use of a template or
   * conversation. The answer comes even if all sequences are busy.
   *
   * The `signal` of each request aborts the call.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `CLOSED`, `ABORTED`, and the codes of rendering.
   */
  explain(request: ChatRequest): Promise<RequestExplanation>;
  explain(first: ChatRequest, second: ChatRequest): Promise<PromptComparison>;
  async explain(request: ChatRequest, other?: ChatRequest): Promise<RequestExplanation | PromptComparison> {
    this.#lifetime.requireOpen();
    return other === undefined
      ? explainRequest(this.#parts, request, this.#lifetime.signal)
      : comparePrompts(this.#parts, [request, other], this.#lifetime.signal);
  }

  /**
   * Continues a text, without a chat template.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `CONTEXT_FULL`, `QUEUE_FULL`, `ABORTED`, `CLOSED`, and the codes of
   *   tokenizing, sampling and decoding.
   */
  async complete(prompt: string, options: CompletionOptions = {}): Promise<Completion> {
    this.#lifetime.requireOpen();
    return this.streamComplete(prompt, options).result;
  }

  /**
   * Returns a completion as a stream: iterate over its parts, or await its `result`. The parts are `text-delta` parts
   * and a `finish` at the end.
   *
   * The completion starts when the stream is iterated or its `result` is awaited.
   *
   * @throws HeadstartError the codes of {@link complete}.
   */
  streamComplete(prompt: string, options: CompletionOptions = {}): ReplyStream<CompletionPart, Completion> {
    this.#lifetime.requireOpen();
    return streamComplete(this.#parts, this.#parts.defaults.sampling, prompt, options, this.#lifetime.signal);
  }

  /**
   * Counts the tokens of the prompt of a request: see {@link ChatModel.countTokens}.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `CLOSED`, `ABORTED`, and the codes of rendering and
   *   tokenizing.
   */
  countTokens(request: ChatRequest, options?: OptionsOf<typeof WITH_SIGNAL>): Promise<number>;

  /**
   * Counts the tokens of a text, or of a conversation's prompt: system prompt, tools, messages and the generation
   * prompt. A system message may come first, as in the `messages` of {@link createSession}.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `CONFIG_INVALID` (the options), `SCHEMA_INVALID`, `CLOSED`, and the
   *   codes of rendering and tokenizing.
   */
  countTokens(
    input: string | readonly ConversationMessage[],
    options?: Pick<SessionOptions, 'systemPrompt' | 'tools'>,
  ): Promise<number>;

  async countTokens(
    input: ChatRequest | string | readonly ConversationMessage[],
    options: OptionsOf<typeof WITH_SIGNAL> | Pick<SessionOptions, 'systemPrompt' | 'tools'> = {},
  ): Promise<number> {
    this.#lifetime.requireOpen();
    if (isObject(input) && !Array.isArray(input)) {
      const { signal } = parseOptions(WITH_SIGNAL_OPTIONS, options, { where: 'the options', code: 'INVALID_ARGUMENT' });
      return this.#lifetime.run('countTokens', signal, (either) =>
        countPromptTokens(this.#parts, input as ChatRequest, either),
      );
    }
    return countTokens(this.#parts, input as string | readonly ConversationMessage[], options as CountOptions);
  }

  /**
   * Renders the prompt of a request of {@link chat}, with the generation prompt. The text does not contain the token at
   * the beginning of a text (BOS) that some models add.
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`, `CLOSED`, `ABORTED`, and the codes of rendering.
   */
  async renderPrompt(request: ChatRequest): Promise<string> {
    this.#lifetime.requireOpen();
    return this.#lifetime.run('renderPrompt', request?.signal, (signal) =>
      renderPromptText(this.#parts, request, signal),
    );
  }

  /**
   * Replaces all LoRA adapters with `loras`. The call waits until no turn is decoding. New turns and sessions wait for
   * the call. Open sessions prefill their messages again with the new adapters. A turn whose tools were running, or
   * that waited for the reader of its stream, also prefills its messages again. If the call fails, nothing has changed.
   *
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID`, `INVALID_ARGUMENT`, `ABORTED`, `CLOSED`, and the codes of
   *   {@link resolveModel}.
   */
  async setLoras(loras: readonly LoraConfig[], options: OptionsOf<typeof WITH_SIGNAL> = {}): Promise<void> {
    parseOptions(LORA_LIST, { loras }, { where: 'the arguments', code: 'INVALID_ARGUMENT' });
    parseOptions(WITH_SIGNAL_OPTIONS, options, { where: 'the options', code: 'INVALID_ARGUMENT' });
    this.#lifetime.requireOpen();
    await this.#lifetime.run('setLoras', options.signal, async (signal) => {
      const files = await resolveLoras(loras, { ...this.#parts.downloads, signal });
      await this.#parts.adapters.set(files, signal);
    });
  }

  /** The specification's name for `templateCache.stats()`. */
  getTemplateCacheStats(): TemplateCacheStats {
    return this.templateCache.stats();
  }

  /** The current state of the agent: queue, sessions, KV cells, tokens per second. */
  health(): AgentHealth {
    const { cache, engine, path } = this.#parts;
    return {
      status: this.#lifetime.isClosing ? 'closing' : 'ok',
      uptimeMs: this.#lifetime.ms,
      model: path,
      openSessions: this.#sessions.size,
      ...engine.status(),
      states: engine.states.store.status(),
      templateCache: this.templateCache.stats(),
      conversations: cache.conversations?.status() ?? { count: 0, bytes: 0, maxBytes: 0 },
    };
  }

  /**
   * Deletes conversations at once: idle sequences, states in memory, and files in the cache directory. A request in
   * progress ends as usual, and its conversation is then dropped. Open sessions stay open. Their next turn prefills
   * their messages again. Cached templates stay: delete them with `templateCache.invalidate()`.
   *
   * @example
   * await agent.forget({ tenant: 'alice', affinity: 'session-1' });
   *
   * @throws HeadstartError `INVALID_ARGUMENT`, `CLOSED`.
   */
  async forget(conversations: ForgetOptions): Promise<ForgetReport> {
    this.#lifetime.requireOpen();
    const options = parseOptions(FORGET_OPTIONS, conversations, {
      where: 'the conversations to forget',
      code: 'INVALID_ARGUMENT',
    });
    if (options.tenant === undefined && options.affinity === undefined) {
      throw new HeadstartError('INVALID_ARGUMENT', 'Expected `tenant`, `affinity` or both, got neither');
    }
    return this.#parts.cache.forget(options);
  }

  /**
   * Resolves when every template prefilled so far is on disk or could not be saved, and when every save of a
   * conversation that has begun has ended.
   */
  async flush(): Promise<void> {
    await this.templateCache.flush();
    await this.#parts.cache.conversations?.settled();
  }

  /** Ends running turns, finishes saves, and frees context and model. Idempotent. */
  close(): Promise<void> {
    return this.#lifetime.close(() => this.#closeParts());
  }

  /** Calls {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #closeParts(): Promise<void> {
    const { cache, engine, model, mcp } = this.#parts;
    const sessions = this.#sessions.all();
    await closeAll([
      () => Promise.all(sessions.map((session) => session.stop())),
      () => cache.saveConversations(),
      () => Promise.all(sessions.map((session) => session.close())),
      () => mcp.close(),
      () => cache.close(),
      () => engine.close(),
      () => model.close(),
      () => this.#stopLogging(),
    ]);
  }
}
