// The agent of a provider: an agent of the program, or one that the provider starts when it is first used.
import { type AgentOptions, AgentServer, type ChatModel, HeadstartError } from 'llama-headstart';
import { orAborted } from './abort.js';

/** What a provider runs on. */
export type LlamaHeadstartSettings =
  | {
      /** A running agent. It stays open when the provider is closed. */
      agent: ChatModel;
    }
  /** The options of an agent. The provider starts this agent on its first call, and closes it. */
  | AgentOptions;

/** Provides the model that answers the calls of a provider. */
export class ModelSource {
  /** The agent of the program; undefined if the provider starts an agent. */
  readonly #agent: ChatModel | undefined;
  readonly #options: AgentOptions;
  readonly #closing = new AbortController();
  #loading: Promise<AgentServer> | undefined;
  #loaded: AgentServer | undefined;
  #closed: Promise<void> | undefined;

  /** @throws HeadstartError `INVALID_ARGUMENT`. */
  constructor(settings: LlamaHeadstartSettings) {
    const { agent, ...options } = (settings ?? {}) as AgentOptions & { agent?: ChatModel };
    const { model } = options;
    if ((agent === undefined) === (model === undefined)) {
      throw new HeadstartError(
        'INVALID_ARGUMENT',
        `Expected \`agent\` or \`model\`, got ${agent === undefined ? 'neither' : 'both'}. Pass a running agent, or the ` +
          'options of `AgentServer.initialize`.',
      );
    }
    this.#agent = agent;
    this.#options = options;
  }

  /** The name of the model. Until an agent is loaded: the option `model.id`, or "local". */
  get id(): string {
    return (this.#agent ?? this.#loaded)?.id ?? this.#options.model.id ?? 'local';
  }

  /**
   * The model. The first call loads it, and concurrent calls share one load. After a failed load, the next call tries
   * again.
   *
   * @param signal ends this call, but not the load, because other calls may wait for the load
   * @throws HeadstartError `CLOSED`, and as `AgentServer.initialize`. The reason of `signal`.
   */
  async model(signal: AbortSignal | undefined): Promise<ChatModel> {
    signal?.throwIfAborted();
    if (this.#closing.signal.aborted) {
      throw closedError();
    }
    if (this.#agent !== undefined) {
      return this.#agent;
    }
    this.#loading ??= this.#load(this.#options);
    return orAborted(this.#loading, signal);
  }

  /** Closes the agent that this source has loaded. A load in progress is aborted. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #load(options: AgentOptions): Promise<AgentServer> {
    const { signal: closing } = this.#closing;
    const signal = options.signal ? AbortSignal.any([closing, options.signal]) : closing;
    try {
      this.#loaded = await AgentServer.initialize({ ...options, signal });
      return this.#loaded;
    } catch (error) {
      this.#loading = undefined;
      throw closing.aborted ? closedError() : error;
    }
  }

  async #close(): Promise<void> {
    this.#closing.abort();
    const agent = await this.#loading?.catch(() => undefined);
    await agent?.close();
  }
}

function closedError(): HeadstartError {
  return new HeadstartError('CLOSED', 'Expected an open provider, but it was closed');
}
