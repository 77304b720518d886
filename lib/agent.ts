import { Adapters } from './cache/adapters.js';
import { AgentTemplateCache, type TemplateOptions } from './cache/agent-cache.js';
import { keyComponents } from './cache/key.js';
import type { TemplateCacheStats } from './cache/stats.js';
import { TemplateCache } from './cache/template-cache.js';
import {
  type ContextSizes,
  checkLoras,
  type ModelConfig,
  type ResolvedModelConfig,
  resolveContextSizes,
  resolveModelConfig,
} from './config.js';
import { Engine } from './engine/engine.js';
import { Gate } from './engine/gate.js';
import { HeadstartError } from './errors.js';
import type { AgentHealth } from './health.js';
import { fingerprintModel } from './model/fingerprint.js';
import { type LoraConfig, resolveLoras } from './model/lora-files.js';
import type { OnModelProgress } from './model/progress.js';
import { type ResolveModelOptions, resolveModel } from './model/resolve.js';
import { throwIfAborted } from './native/addon.js';
import { type Logger, setNativeLogger } from './native/log.js';
import { Model } from './native/model.js';
import { systemInfo } from './native/system.js';
import { checkOptions } from './options.js';
import { Session, type SessionServices } from './session/session.js';
import { startTelemetry } from './telemetry.js';
import type { Boundary } from './template/boundary.js';
import { Renderer, type TemplateSource, type ToolDefinition } from './template/render.js';
import { Templates } from './template/templates.js';
import { stableToolOrder } from './template/tool-order.js';

export interface AgentOptions {
  model: ModelConfig;
  /** Default of sessions that name none. */
  systemPrompt?: string;
  /** Default of sessions that name none. */
  tools?: readonly ToolDefinition[];
  /**
   * Gets this package's and llama.cpp's warnings. llama.cpp has one log for all: its lines go to the logger of the agent
   * initialised last in this thread. @default none: quiet
   */
  logger?: Logger;
  /** The model's way here: download, verification, load. */
  onProgress?: OnModelProgress;
  /** Aborts the start; what was opened is closed again. */
  signal?: AbortSignal;
}

export interface SessionOptions {
  /** @default the agent's */
  systemPrompt?: string;
  /** @default the agent's */
  tools?: readonly ToolDefinition[];
  /** False prefills the template and leaves the cache alone. @default true */
  templateCache?: boolean;
  /** Whose session it is: cached templates of one tenant never serve another. @default none, which is a tenant of its own */
  tenant?: string;
  signal?: AbortSignal;
}

const AGENT_CHECKS = {
  model: (value: unknown) => (typeof value === 'object' && value !== null ? undefined : 'an object'),
  systemPrompt: checkSystemPrompt,
  tools: checkTools,
  logger: checkFunction,
  onProgress: checkFunction,
  signal: checkSignal,
};

const SESSION_CHECKS = {
  systemPrompt: checkSystemPrompt,
  tools: checkTools,
  templateCache: (value: unknown) => (typeof value === 'boolean' ? undefined : 'a boolean'),
  tenant: (value: unknown) => (typeof value === 'string' && value !== '' ? undefined : 'a non-empty string'),
  signal: checkSignal,
};

const TEMPLATE_CHECKS = {
  systemPrompt: checkSystemPrompt,
  tools: checkTools,
  tenant: SESSION_CHECKS.tenant,
};

interface Parts extends SessionServices {
  stableTools: boolean;
  templates: Templates;
  defaults: TemplateSource;
  adapters: Adapters;
  /** The model's file. */
  path: string;
  /** How what is not on this machine gets here. */
  fetching: Omit<ResolveModelOptions, 'signal'>;
}

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
  readonly templateCache: AgentTemplateCache;
  readonly #parts: Parts;
  readonly #sessions = new Set<Session>();
  readonly #since = performance.now();
  #closing: Promise<void> | undefined;

  private constructor(parts: Parts) {
    this.#parts = parts;
    const { cache, engine, model, gate } = parts;
    const find = async (template: TemplateOptions) => {
      this.#requireOpen();
      checkOptions(template, TEMPLATE_CHECKS, 'the template');
      return this.#boundaryOf(this.#sourceOf(template));
    };
    this.templateCache = new AgentTemplateCache({ cache, engine, model, gate, find });
  }

  /**
   * Loads the model, makes its context and opens the template cache.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `ADDON_NOT_FOUND`, `MODEL_NOT_FOUND`, `MODEL_INVALID`, `UNSUPPORTED_MODEL`,
   *   `CONTEXT_FAILED`, `OUT_OF_MEMORY`, `ABORTED`, and what {@link resolveModel} throws.
   */
  static async initialize(options: AgentOptions): Promise<AgentServer> {
    checkOptions(options, AGENT_CHECKS, 'the options');
    const config = resolveModelConfig(options.model);
    throwIfAborted(options.signal);
    if (options.logger !== undefined) {
      setNativeLogger(options.logger, { level: config.debug ? 'info' : 'warn' });
    }
    const fetching = {
      directory: config.modelsDir,
      retryConfig: config.retryConfig,
      onProgress: options.onProgress,
      logger: options.logger,
    };
    const { signal } = options;
    await startTelemetry();
    const { path } = await resolveModel(config.source, { ...fetching, generationConfig: config.useHfParams, signal });
    const loras = await resolveLoras(config.loras, { ...fetching, signal });
    const [model, fingerprint] = await loadModel(path, config, options);
    try {
      const { engine, sizes } = await makeEngine(model, config);
      const cache = await openCache(model, fingerprint, engine, config, options.logger);
      const renderer = new Renderer(model, config.chatTemplate);
      const templates = new Templates(model, renderer, fingerprint, config.cacheDir ?? undefined, config.breakpoints);
      const gate = new Gate();
      const adapters = new Adapters({ model, engine, cache, gate });
      if (loras.length > 0) {
        await adapters.set(loras, signal);
      }
      const defaults = { systemPrompt: options.systemPrompt, tools: options.tools && copyOf(options.tools) };
      throwIfAborted(options.signal);
      const { contextSize } = sizes;
      const { stableTools } = config;
      const services = { model, engine, cache, renderer, contextSize, gate };
      return new AgentServer({ ...services, templates, defaults, stableTools, adapters, fetching, path });
    } catch (error) {
      await model.close(); // and with it the context
      throw error;
    }
  }

  /** The loaded model. */
  get model(): Model {
    return this.#parts.model;
  }

  /** Tokens that one session may hold. */
  get contextSize(): number {
    return this.#parts.contextSize;
  }

  /**
   * Opens a session with its template ready in the KV cache. Any number may be open; `nSeqMax` of them hold a sequence.
   *
   * @throws HeadstartError `CONFIG_INVALID`, `CLOSED`, `ABORTED`, `CONTEXT_FULL`, `NO_CHAT_TEMPLATE`, and what rendering
   *   and decoding throw.
   */
  async createSession(options: SessionOptions = {}): Promise<Session> {
    const begin = performance.now();
    checkOptions(options, SESSION_CHECKS, 'the session options');
    this.#requireOpen();
    throwIfAborted(options.signal);
    const source = this.#sourceOf(options);
    const boundary = await this.#boundaryOf(source);
    throwIfAborted(options.signal);
    this.#requireOpen();
    const { templates, gate } = this.#parts;
    const leave = await gate.enter(options.signal);
    const session: Session = await Session.start(
      this.#parts,
      {
        source,
        template: boundary.tokens,
        templateReason: boundary.reason,
        useCache: options.templateCache ?? true,
        tenant: options.tenant,
        breakpoints: boundary.breakpoints,
        signal: options.signal,
        onMismatch: (mismatched) => templates.forget(mismatched),
        onClosed: () => this.#sessions.delete(session),
      },
      begin,
    ).finally(leave);
    this.#sessions.add(session);
    if (this.#closing !== undefined) {
      await session.close();
      this.#requireOpen();
    }
    return session;
  }

  /**
   * Applies these LoRA adapters, and no others, once no turn runs; turns and sessions that begin meanwhile wait. Open sessions go
   * on with the new adapters from their messages. Not from inside a stream's loop: it would wait for that very turn.
   *
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID`, `INVALID_ARGUMENT`, `ABORTED`, `CLOSED`, and what
   *   {@link resolveModel} throws; nothing changed then.
   */
  async setLoras(loras: readonly LoraConfig[], options: { signal?: AbortSignal } = {}): Promise<void> {
    const expected = checkLoras(loras);
    if (expected !== undefined) {
      throw new HeadstartError('INVALID_ARGUMENT', `Expected \`loras\` to be ${expected}`);
    }
    this.#requireOpen();
    const files = await resolveLoras(loras, { ...this.#parts.fetching, signal: options.signal });
    this.#requireOpen();
    await this.#parts.adapters.set(files, options.signal);
  }

  /** How the template cache does. */
  getTemplateCacheStats(): TemplateCacheStats {
    return this.#parts.cache.stats();
  }

  /** How the agent does right now: queue, sessions, KV cells, tokens per second. */
  health(): AgentHealth {
    const { engine, cache, path } = this.#parts;
    return {
      status: this.#closing === undefined ? 'ok' : 'closing',
      uptimeMs: performance.now() - this.#since,
      model: path,
      openSessions: this.#sessions.size,
      ...engine.status(),
      templateCache: cache.stats(),
    };
  }

  /** Resolves when every template prefilled so far is on disk, or has failed to get there. */
  flush(): Promise<void> {
    return this.#parts.cache.flush();
  }

  /** Ends turns that run, finishes saves, frees context and model. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#closeParts();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #sourceOf({ systemPrompt, tools }: TemplateSource): TemplateSource {
    const { defaults, stableTools } = this.#parts;
    const chosen = tools ? copyOf(tools) : defaults.tools;
    return {
      systemPrompt: systemPrompt ?? defaults.systemPrompt,
      tools: chosen && stableTools ? stableToolOrder(chosen) : chosen,
    };
  }

  async #boundaryOf(source: TemplateSource): Promise<Boundary> {
    const { templates, contextSize } = this.#parts;
    const boundary = await templates.find(source);
    if (boundary.tokens.length >= contextSize) {
      throw new HeadstartError(
        'CONTEXT_FULL',
        `The template has ${boundary.tokens.length} tokens and leaves no room in a context of ${contextSize}: shorten the system prompt or tools, or raise \`contextSize\``,
      );
    }
    return boundary;
  }

  async #closeParts(): Promise<void> {
    const { cache, engine, model } = this.#parts;
    await Promise.all([...this.#sessions].map((session) => session.close()));
    await cache.close();
    await engine.close();
    await model.close();
  }

  #requireOpen(): void {
    if (this.#closing !== undefined) {
      throw new HeadstartError('CLOSED', 'Expected an open agent, but it was closed');
    }
  }
}

async function loadModel(path: string, config: ResolvedModelConfig, options: AgentOptions): Promise<[Model, string]> {
  const fingerprint = fingerprintModel(path, { signal: options.signal });
  fingerprint.catch(() => undefined); // a file that cannot be loaded is reported as that, first
  const model = await Model.load({
    path,
    gpuLayers: config.nGpuLayers,
    useMmap: config.useMmap,
    useMlock: config.useMlock,
    onProgress: (fraction) => options.onProgress?.({ phase: 'load', fraction }),
    ...(options.signal && { signal: options.signal }),
  });
  try {
    return [model, await fingerprint];
  } catch (error) {
    await model.close();
    throw error;
  }
}

async function makeEngine(model: Model, config: ResolvedModelConfig): Promise<{ engine: Engine; sizes: ContextSizes }> {
  const sizes = resolveContextSizes(config, model.info.trainContextSize);
  const context = await model.createContext({
    kvCells: sizes.kvCells,
    maxSequences: sizes.maxSequences,
    maxOutputs: sizes.maxSequences,
    batchSize: config.batchSize,
    threads: config.nThreads,
    batchThreads: config.nThreadsBatch,
    unified: config.kvLayout === 'unified',
    keyType: config.keyType,
    valueType: config.valueType,
    flashAttention: config.flashAttention,
    fullSlidingWindow: config.fullSlidingWindow,
  });
  return { engine: new Engine(context, { residentSequences: sizes.residentSequences }), sizes };
}

function openCache(
  model: Model,
  fingerprint: string,
  engine: Engine,
  config: ResolvedModelConfig,
  logger: Logger | undefined,
): Promise<TemplateCache> {
  const components = keyComponents({
    llamaVersion: systemInfo().llamaVersion,
    fingerprint,
    model: model.info,
    metadata: model.metadata(),
    context: engine.context.info,
  });
  return TemplateCache.open({
    engine,
    components,
    directory: config.cacheDir ?? undefined,
    allowSharedDirectory: config.allowSharedDirectory,
    maxMemoryBytes: config.maxMemoryBytes,
    maxResidentCells: config.maxResidentCells,
    minFreeDiskBytes: config.minFreeDiskBytes,
    maxBytes: config.maxBytes,
    maxEntries: config.maxEntries,
    maxAgeMs: config.maxAgeMs,
    minTokens: config.minTokens,
    breakEven: config.breakEven,
    reuse: config.reuse,
    logger,
  });
}

function checkSystemPrompt(value: unknown): string | undefined {
  return typeof value === 'string' ? undefined : 'a string';
}

function checkFunction(value: unknown): string | undefined {
  return typeof value === 'function' ? undefined : 'a function';
}

function checkSignal(value: unknown): string | undefined {
  return value instanceof AbortSignal ? undefined : 'an AbortSignal';
}

/** What the model is told must not change behind our back: later turns render it again. */
function copyOf(tools: readonly ToolDefinition[]): readonly ToolDefinition[] {
  return tools.map(({ name, description, parameters, server }) => ({
    name,
    ...(server !== undefined && { server }),
    ...(description !== undefined && { description }),
    ...(parameters !== undefined && { parameters: JSON.parse(JSON.stringify(parameters)) as object }),
  }));
}

function checkTools(value: unknown): string | undefined {
  if (!Array.isArray(value)) {
    return 'an array of tools';
  }
  const names = new Set<string>();
  for (const tool of value as Partial<ToolDefinition>[]) {
    const problem = checkTool(tool);
    if (problem !== undefined) {
      return `an array of tools, each with ${problem}`;
    }
    const name = tool.name as string;
    if (names.has(name)) {
      return `an array of tools with names of their own ("${name}" is there twice)`;
    }
    names.add(name);
  }
  return undefined;
}

/** @returns what a tool has to have and this one has not */
function checkTool(tool: Partial<ToolDefinition> | null): string | undefined {
  if (typeof tool?.name !== 'string' || tool.name === '') {
    return 'a non-empty `name`';
  }
  if (tool.description !== undefined && typeof tool.description !== 'string') {
    return 'a string as `description`';
  }
  if (tool.server !== undefined && typeof tool.server !== 'string') {
    return 'a string as `server`';
  }
  if (tool.parameters !== undefined && !isJsonObject(tool.parameters)) {
    return '`parameters` that are a JSON Schema object';
  }
  return undefined;
}

function isJsonObject(value: unknown): boolean {
  try {
    return typeof value === 'object' && value !== null && JSON.stringify(value).startsWith('{');
  } catch {
    return false; // circular, or a bigint
  }
}
