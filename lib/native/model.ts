import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawModel, toJson, unlessAborted, withAbort } from './addon.js';
import { Context, type ContextOptions } from './context.js';
import { triggersOfRender } from './grammar-trigger.js';
import { LoraAdapter } from './lora.js';
import type { ModelInfo } from './model-info.js';
import { type ParsedReply, type ParseRequest, parseReply, type ReplyFormat } from './reply.js';
import { Sampler, type SamplerOptions } from './sampler.js';

/** Options of `Model.load()`. */
export interface ModelLoadOptions {
  /** The GGUF file. For a split model, the first part (`...-00001-of-00003.gguf`). */
  path: string;
  /** The number of layers on the GPU. @default -1 (all layers, if there is a GPU backend) */
  nGpuLayers?: number;
  /** Map the file into memory instead of reading it. @default true */
  useMmap?: boolean;
  /** Lock the weights in memory. @default false */
  useMlock?: boolean;
  /** Let backends rearrange weights for faster computing on the CPU. @default true */
  repackWeights?: boolean;
  /** Check that all tensor data is valid. This check is slow. @default false */
  checkTensors?: boolean;
  /** Load only the tokenizer and the metadata, but no weights. @default false */
  vocabularyOnly?: boolean;
  /**
   * Called during the load with numbers from 0 to 1. If the function throws, the load ends and rejects with its error.
   */
  onProgress?: (fraction: number) => void;
  /** Stops the load with `ABORTED`. */
  signal?: AbortSignal;
}

/** A conversation to render. */
export interface RenderRequest {
  /** Messages in the OpenAI chat format. */
  messages: readonly object[];
  /** Tools in the OpenAI chat format (`{ type: 'function', function: { name, description, parameters } }`). */
  tools?: readonly object[];
  /**
   * The tools to write into the prompt, if the chat template cannot write `tools`: the same tools with simpler schemas.
   * The grammar and the parser are still those of `tools`. @default `tools`
   */
  shownTools?: readonly object[];
  /**
   * A chat template (Jinja) that replaces the model's own. Every chat template is a program, even one in a model file,
   * and llama.cpp runs it without limits. A template can end the process or use all memory, and no signal stops it. Use
   * only templates that you trust.
   */
  chatTemplate?: string;
  /** End the prompt with the opening of the assistant's turn. @default true */
  addGenerationPrompt?: boolean;
  /** Whether the model may reason, for chat templates that can turn reasoning off. @default true */
  reasoning?: boolean;
  /** Whether the grammar allows, requires or forbids tool calls. @default 'auto' */
  toolChoice?: 'auto' | 'required' | 'none';
  /** Let the grammar allow several tool calls. @default false */
  parallelToolCalls?: boolean;
  /** The JSON Schema of the reply. The grammar allows only text that is JSON of this schema. @default none */
  jsonSchema?: object;
  /**
   * `auto`: the parser separates reasoning from the reply's text. `none`: reasoning stays in the text. @default 'auto'
   */
  reasoningFormat?: 'auto' | 'none';
  /**
   * Do not derive a reply format from the chat template. The derivation takes most of the time of a render. Without it,
   * the grammar is empty, and the parser returns the whole reply as text. llama.cpp also leaves out the changes of
   * messages that some chat templates need (gpt-oss's, for example), so the prompt may differ. @default false
   */
  textOnly?: boolean;
}

/** A conversation as the model reads it, and the format of the reply. */
export interface RenderedPrompt extends ReplyFormat {
  /**
   * The text of the prompt. If `vocabulary.addsBos` is true, the text has no BOS token: tokenize it with `addSpecial`.
   */
  prompt: string;
  /** Whether the chat template declares that it can describe tools. */
  supportsTools: boolean;
}

/**
 * A loaded GGUF model: weights, vocabulary, chat template. A model can have any number of contexts.
 *
 * After `close()` every method but `close` throws `CLOSED`. `controlTokens()` still returns a result that it has
 * cached.
 */
export class Model {
  /** The GGUF file. For a split model, the first part. */
  readonly path: string;
  /** The description of the model, from its metadata. */
  readonly info: Readonly<ModelInfo>;
  readonly #raw: RawModel;
  #controlTokens: ReadonlySet<number> | undefined;
  /** These maps are caches, because both values are needed for each generated token. */
  readonly #endsGeneration = new Map<number, boolean>();
  readonly #texts = new Map<number, string | null>();

  private constructor(path: string, raw: RawModel) {
    this.path = path;
    this.#raw = raw;
    this.info = Object.freeze(raw.info() as ModelInfo);
  }

  /**
   * Loads a model on a thread of its own.
   *
   * @throws HeadstartError `MODEL_NOT_FOUND`, `MODEL_INVALID` (with llama.cpp's reason), `ABORTED`, `OUT_OF_MEMORY`,
   *   `INVALID_ARGUMENT`. An error of `onProgress` is thrown as it is.
   */
  static async load(options: ModelLoadOptions): Promise<Model> {
    const { signal, ...rest } = options ?? {};
    const { onProgress } = rest;
    let thrown: { error: unknown } | undefined;
    const load = async (abort: RawAbortFlag = new (addon().AbortFlag)()) => {
      const guarded = (fraction: number) => {
        try {
          onProgress?.(fraction);
        } catch (error) {
          thrown ??= { error };
          abort.set();
        }
      };
      const listener = typeof onProgress === 'function' ? { onProgress: guarded } : {};
      const model = new Model(rest.path, await addon().Model.load({ ...rest, ...listener, abort }));
      if (thrown || signal?.aborted) {
        await model.close();
        throw new HeadstartError('ABORTED', `The load of "${rest.path}" was aborted`);
      }
      return model;
    };
    try {
      return await withAbort(signal, load);
    } catch (error) {
      throw thrown ? thrown.error : error;
    }
  }

  /** All scalar GGUF metadata, as text. */
  metadata(): Record<string, string> {
    return this.#raw.metadata();
  }

  /**
   * Converts a text to token ids. The text may have at most 256 MiB, and must have a space or line break at least every
   * 400,000 bytes.
   *
   * @param options.addSpecial add BOS and EOS tokens if the model's metadata asks for them. @default false
   * @param options.parseSpecial convert text such as `<|im_start|>` to a control token, not to tokens of plain text.
   *   @default false
   * @param options.signal prevents the call if the signal fires before the call starts. If the signal fires later, the
   *   result is dropped
   * @throws HeadstartError `NO_TOKENIZER`, `TEXT_TOO_LONG`, `TEXT_UNBREAKABLE`, `INVALID_ARGUMENT`, `ABORTED`.
   */
  async tokenize(
    text: string,
    options: { addSpecial?: boolean; parseSpecial?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Int32Array> {
    return unlessAborted(options?.signal, (abort) => this.#raw.tokenize(text, options, abort));
  }

  /**
   * Converts tokens to the bytes of their text, in UTF-8. A token may contain only a part of a character.
   *
   * @param options.special include the text of control tokens. @default false
   * @param options.signal as in {@link tokenize}
   * @throws HeadstartError `NO_TOKENIZER`, `TOKEN_OUT_OF_RANGE`, `INVALID_ARGUMENT` (not an Int32Array), `ABORTED`.
   */
  async detokenize(
    tokens: Int32Array,
    options: { special?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Uint8Array> {
    return unlessAborted(options?.signal, (abort) => this.#raw.detokenize(tokens, options, abort));
  }

  /**
   * Returns the bytes of one token, synchronously. Empty for a control token.
   *
   * @param options.special include the text of control tokens. @default false
   * @throws HeadstartError `NO_TOKENIZER`, `INVALID_ARGUMENT` (not a token id of this model).
   */
  tokenToBytes(token: number, options: { special?: boolean } = {}): Uint8Array {
    return this.#raw.tokenToBytes(token, options?.special ?? false);
  }

  /**
   * Returns the text of one token, synchronously. Empty for a control token.
   *
   * @returns undefined if the bytes are not complete UTF-8 characters
   * @throws HeadstartError as {@link tokenToBytes}.
   */
  tokenToText(token: number): string | undefined {
    let text = this.#texts.get(token);
    if (text === undefined) {
      text = completeText(this.tokenToBytes(token)) ?? null;
      this.#texts.set(token, text);
    }
    return text ?? undefined;
  }

  /**
   * Whether generation ends with this token (such as EOS or EOT). False for models without a tokenizer.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (not a token id of this model).
   */
  isEndOfGeneration(token: number): boolean {
    let ends = this.#endsGeneration.get(token);
    if (ends === undefined) {
      ends = this.#raw.tokenFacts(token).endOfGeneration;
      this.#endsGeneration.set(token, ends);
    }
    return ends;
  }

  /**
   * Whether a token is a control token. `tokenize` returns control tokens for text only with `parseSpecial`.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (not a token id of this model).
   */
  isControl(token: number): boolean {
    return this.#raw.tokenFacts(token).control;
  }

  /**
   * The tokens that the tokenizer matches as a whole: control and user-defined tokens. The tokenizer merges no
   * characters across them.
   */
  controlTokens(): ReadonlySet<number> {
    this.#controlTokens ??= new Set(this.#raw.controlTokens());
    return this.#controlTokens;
  }

  /**
   * Renders a conversation with the chat template.
   *
   * @param options.signal prevents the call if the signal fires before the call starts. If the signal fires later, the
   *   result is dropped
   * @throws HeadstartError `NO_CHAT_TEMPLATE`, `CHAT_TEMPLATE_INVALID`, `CHAT_TEMPLATE_FAILED`, `JSON_TOO_DEEP`,
   *   `SCHEMA_INVALID` (a tool's parameters or `jsonSchema`), `INVALID_ARGUMENT` (messages or tools not in the OpenAI
   *   chat format), `ABORTED`.
   */
  async render(request: RenderRequest, options: { signal?: AbortSignal | undefined } = {}): Promise<RenderedPrompt> {
    const raw = {
      ...request,
      messages: toJson('messages', request?.messages),
      tools: toJson('tools', request?.tools ?? []),
      shownTools: request?.shownTools === undefined ? undefined : toJson('shownTools', request.shownTools),
      jsonSchema: request?.jsonSchema === undefined ? undefined : toJson('jsonSchema', request.jsonSchema),
    };
    return unlessAborted(options?.signal, async (abort) => {
      const rendered = await this.#raw.render(raw, abort);
      return { ...rendered, grammarTriggers: triggersOfRender(rendered.grammarTriggers) };
    });
  }

  /**
   * Parses a reply, in the format of its chat template, into text, reasoning and tool calls.
   *
   * @param options.signal prevents the call if the signal fires before the call starts. If the signal fires later, the
   *   result is dropped
   * @throws HeadstartError `REPLY_INVALID` (the text does not follow the format: see `beginning`), `TEXT_TOO_LONG`
   *   (more than 16 MiB), `JSON_TOO_DEEP` (more than 4,096 open brackets), `INVALID_ARGUMENT`, `ABORTED`.
   */
  parseReply(request: ParseRequest, options: { signal?: AbortSignal | undefined } = {}): Promise<ParsedReply> {
    return parseReply(request, options?.signal);
  }

  /**
   * Creates a sampler, which serves one sequence at a time.
   *
   * @param cancel.signal prevents the call if the signal fires before the call starts. If the signal fires later, the
   *   new sampler is closed
   * @throws HeadstartError `INVALID_ARGUMENT` (with the option and its bounds; also a trigger pattern that no render
   *   returned), `TOKEN_OUT_OF_RANGE`, `NO_CANDIDATES` (every token is forbidden), `GRAMMAR_INVALID` (with the reason),
   *   `NO_TOKENIZER` (an option needs a tokenizer), `TEXT_TOO_LONG`, `ABORTED`.
   */
  async createSampler(
    options: SamplerOptions = {},
    cancel: { signal?: AbortSignal | undefined } = {},
  ): Promise<Sampler> {
    return unlessAborted(
      cancel?.signal,
      (abort) => Sampler.create(this.#raw, options, abort),
      (sampler) => sampler.close(),
    );
  }

  /**
   * Loads a LoRA adapter (GGUF) for this model.
   *
   * @param options.signal prevents the load if the signal fires before the load starts. If the signal fires later, the
   *   new adapter is closed
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID` (damaged, or for another model), `UNSUPPORTED_MODEL`,
   *   `INVALID_ARGUMENT`, `ABORTED`.
   */
  async loadLora(path: string, options: { signal?: AbortSignal | undefined } = {}): Promise<LoraAdapter> {
    return unlessAborted(
      options?.signal,
      (abort) => LoraAdapter.load(this.#raw, path, abort),
      (adapter) => adapter.close(),
    );
  }

  /**
   * Creates a context of this model, with its own KV cache, thread and thread pool.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (with the option and its bounds), `UNSUPPORTED_MODEL` (without weights,
   *   or not a causal language model), `OUT_OF_MEMORY` (more cells than the machine has memory for), `CONTEXT_FAILED`
   *   (with llama.cpp's reason), `ABORTED`.
   */
  async createContext(options: ContextOptions): Promise<Context> {
    return Context.create(this.#raw, this.info, options);
  }

  /** Closes the contexts, samplers and adapters of the model, then frees the model. Resolves after that. Idempotent. */
  async close(): Promise<void> {
    this.#endsGeneration.clear();
    this.#texts.clear();
    return this.#raw.close();
  }

  /** The same as {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function completeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
