import { HeadstartError } from '../errors.js';
import { addon, type RawAbortFlag, type RawModel, toJson, unlessAborted, withAbort } from './addon.js';
import { Context, type ContextOptions } from './context.js';
import { triggersOfRender } from './grammar-trigger.js';
import { LoraAdapter } from './lora.js';
import { type ParsedReply, type ParseRequest, parseReply, type ReplyFormat } from './reply.js';
import { Sampler, type SamplerOptions } from './sampler.js';

/** How a model is loaded. */
export interface ModelLoadOptions {
  /** The GGUF file; of a split model the first part (`...-00001-of-00003.gguf`). */
  path: string;
  /** Layers to offload to the GPU. @default -1 (all, where there is a GPU backend) */
  nGpuLayers?: number;
  /** Map the file instead of reading it. @default true */
  useMmap?: boolean;
  /** Lock the weights in memory. @default false */
  useMlock?: boolean;
  /** Let backends repack weights for faster kernels (CPU). @default true */
  repackWeights?: boolean;
  /** Check all tensor data for validity: slow. @default false */
  checkTensors?: boolean;
  /** Load the tokeniser and metadata, no weights. @default false */
  vocabularyOnly?: boolean;
  /** Called with 0 to 1 as the load goes on. What it throws ends the load, which then rejects with it. */
  onProgress?: (fraction: number) => void;
  /** Ends the load with `ABORTED`. */
  signal?: AbortSignal;
}

/** A model's vocabulary. */
export interface VocabularyInfo {
  /** The tokeniser's kind. `none`: the model takes token ids only. */
  type: 'none' | 'spm' | 'bpe' | 'wpm' | 'ugm' | 'rwkv' | 'plamo2' | 'test';
  /** Number of token ids; valid ids are 0 to size - 1. */
  size: number;
  /** The token that begins a text. */
  bos: number | null;
  /** The token that ends a text. */
  eos: number | null;
  /** The token that ends a turn. */
  eot: number | null;
  /** The token of a line break. */
  newline: number | null;
  /** The token that fills up. */
  pad: number | null;
  /** The token between two texts. */
  separator: number | null;
  /** The token that stands for a hidden one. */
  mask: number | null;
  /** Whether a prompt of this model starts with the BOS token. */
  addsBos: boolean;
  /** Whether a text of this model ends with the EOS token. Prompts of this package never do. */
  addsEos: boolean;
}

/** What a model is, by its own metadata. */
export interface ModelInfo {
  /** As llama.cpp describes it, for example `llama 256M Q4_1`. */
  description: string;
  /** `general.architecture` of the GGUF file. */
  architecture: string;
  /** The quantisation's name, for example `Q4_1`. */
  fileType: string;
  /** Number of weights. */
  parameters: number;
  /** Size of all tensors in bytes. */
  sizeBytes: number;
  /** Tokens of context that the model was trained with. */
  trainContextSize: number;
  /** Width of the hidden state. */
  embeddingSize: number;
  /** Number of layers. */
  layers: number;
  /** Attention heads of a layer. */
  heads: number;
  /** Attention heads that have keys and values of their own. */
  kvHeads: number;
  /** Tokens in the attention window of sliding-window layers; 0 where there are none. */
  slidingWindow: number;
  /** llama.cpp's number for the kind of RoPE; -1 is none. */
  ropeType: number;
  /** All memory is recurrent state (Mamba, RWKV): no partial removal. */
  recurrent: boolean;
  /** Attention and recurrent layers both (Jamba, Granite hybrid). */
  hybrid: boolean;
  /** Generates by diffusion, not token by token. */
  diffusion: boolean;
  /** Has an encoder. */
  encoder: boolean;
  /** Has a decoder. */
  decoder: boolean;
  /** The model's own chat template (Jinja), or null. */
  chatTemplate: string | null;
  /** What its tokens are. */
  vocabulary: VocabularyInfo;
}

/** A conversation to render. */
export interface RenderRequest {
  /** Messages in the OpenAI chat format. */
  messages: readonly object[];
  /** Tools in the OpenAI chat format (`{ type: 'function', function: { name, description, parameters } }`). */
  tools?: readonly object[];
  /**
   * What the chat template writes in place of `tools`, if it cannot write those: the same tools with simpler schemas. Grammar and
   * parser come from `tools`. @default `tools`
   */
  shownTools?: readonly object[];
  /**
   * A chat template (Jinja) instead of the model's own. It is a program, and so is the one in a model file: llama.cpp runs it
   * without bounds. One that calls itself for ever or nests an object in itself ends the process, one that counts to a billion
   * takes the memory for it, and no signal ends it: only from those whom you trust.
   */
  chatTemplate?: string;
  /** End with the opening of the assistant's turn. @default true */
  addGenerationPrompt?: boolean;
  /** For templates that can switch reasoning off. @default true */
  reasoning?: boolean;
  /** Whether the reply may, must or must not call tools: decides the grammar. @default 'auto' */
  toolChoice?: 'auto' | 'required' | 'none';
  /** Let the grammar take several tool calls. @default false */
  parallelToolCalls?: boolean;
  /** The reply's text must be JSON of this schema: decides the grammar. */
  jsonSchema?: object;
  /** `auto` sets reasoning apart when a reply is parsed, `none` leaves it in the text. @default 'auto' */
  reasoningFormat?: 'auto' | 'none';
}

/** A conversation as the model reads it, and the form of the reply to it. */
export interface RenderedPrompt extends ReplyFormat {
  /** The prompt's text. It has no BOS token where `vocabulary.addsBos` holds: the tokeniser's user puts it in front. */
  prompt: string;
  /** Whether the chat template says that it can describe tools. */
  supportsTools: boolean;
}

/**
 * A loaded GGUF model: weights, vocabulary, chat template. Thread-safe; one model serves any number of contexts.
 *
 * Every method but `close` throws `CLOSED` after `close()`, but for what was asked before and is remembered: `controlTokens`.
 */
export class Model {
  /** Of a split model the first file. */
  readonly path: string;
  /** What the model is, by its own metadata. */
  readonly info: Readonly<ModelInfo>;
  readonly #raw: RawModel;
  #controlTokens: ReadonlySet<number> | undefined;
  /** What is known of tokens: asked after each one that is generated. */
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
   * @throws HeadstartError `MODEL_NOT_FOUND`, `MODEL_INVALID` (with llama.cpp's own words), `ABORTED`, `OUT_OF_MEMORY`,
   *   `INVALID_ARGUMENT`; what `onProgress` threw, as it is.
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
   * The token ids of a text: alone, without BOS or EOS, and with control tokens taken for plain text, where nothing else is
   * asked for. At most 256 MiB, and at most 400,000 bytes without a break where the model's tokeniser needs one.
   *
   * @param options.addSpecial add BOS and EOS as the model's settings say. @default false
   * @param options.parseSpecial turn text such as `<|im_start|>` into control tokens. @default false
   * @param options.signal takes effect before the tokeniser begins, and behind it: nothing interrupts one
   * @throws HeadstartError `NO_TOKENIZER`, `TEXT_TOO_LONG`, `TEXT_UNBREAKABLE`, `INVALID_ARGUMENT`, `ABORTED`.
   */
  async tokenize(
    text: string,
    options: { addSpecial?: boolean; parseSpecial?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Int32Array> {
    return unlessAborted(options?.signal, (abort) => this.#raw.tokenize(text, options, abort));
  }

  /**
   * The bytes of the tokens' text: UTF-8, but for tokens that hold part of a character.
   *
   * @param options.special give control tokens' text too. @default false
   * @param options.signal as of {@link tokenize}
   * @throws HeadstartError `NO_TOKENIZER`, `TOKEN_OUT_OF_RANGE`, `INVALID_ARGUMENT` (no Int32Array), `ABORTED`.
   */
  async detokenize(
    tokens: Int32Array,
    options: { special?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Uint8Array> {
    return unlessAborted(options?.signal, (abort) => this.#raw.detokenize(tokens, options, abort));
  }

  /**
   * The bytes of one token, at once: for streaming. Empty for control tokens.
   *
   * @param options.special give a control token's text too. @default false
   * @throws HeadstartError `NO_TOKENIZER`, `INVALID_ARGUMENT` (no token id of this model).
   */
  tokenToBytes(token: number, options: { special?: boolean } = {}): Uint8Array {
    return this.#raw.tokenToBytes(token, options?.special ?? false);
  }

  /**
   * The text of one token, at once, and remembered. Empty for control tokens.
   *
   * @returns undefined where it is not whole characters of UTF-8
   * @throws HeadstartError as {@link tokenToBytes}.
   */
  tokenToText(token: number): string | undefined {
    let text = this.#texts.get(token);
    if (text === undefined) {
      text = wholeText(this.tokenToBytes(token)) ?? null;
      this.#texts.set(token, text);
    }
    return text ?? undefined;
  }

  /**
   * Whether generation ends with this token (EOS, EOT and their like). False on models without a tokeniser.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (no token id of this model).
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
   * Whether a token is a control token: text of a prompt becomes one only where special tokens are parsed.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (no token id of this model).
   */
  isControl(token: number): boolean {
    return this.#raw.tokenFacts(token).control;
  }

  /** The ids that the tokeniser matches whole (control and user-defined tokens): no merge crosses them. */
  controlTokens(): ReadonlySet<number> {
    this.#controlTokens ??= new Set(this.#raw.controlTokens());
    return this.#controlTokens;
  }

  /**
   * A conversation as the chat template writes it.
   *
   * @param options.signal takes effect before the template runs, and behind it
   * @throws HeadstartError `NO_CHAT_TEMPLATE`, `CHAT_TEMPLATE_INVALID`, `CHAT_TEMPLATE_FAILED`, `JSON_TOO_DEEP`,
   *   `SCHEMA_INVALID` (a tool's parameters or `jsonSchema`), `INVALID_ARGUMENT` (messages or tools not in the OpenAI chat
   *   format), `ABORTED`.
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
   * Reads a reply in the form of its chat template: text, reasoning, tool calls.
   *
   * @param options.signal takes effect before the reading begins, and behind it
   * @throws HeadstartError `REPLY_INVALID` (the text is not in that form: see `beginning`), `TEXT_TOO_LONG` (16 MiB), `JSON_TOO_DEEP` (more
   *   than 4,096 open brackets), `INVALID_ARGUMENT`, `ABORTED`.
   */
  parseReply(request: ParseRequest, options: { signal?: AbortSignal | undefined } = {}): Promise<ParsedReply> {
    return parseReply(request, options?.signal);
  }

  /**
   * A sampler for one sequence at a time.
   *
   * @param cancel.signal takes effect before the grammar is read, and behind it: the sampler is closed then
   * @throws HeadstartError `INVALID_ARGUMENT` (with the option and its bounds), `TOKEN_OUT_OF_RANGE`, `NO_CANDIDATES` (every
   *   token forbidden), `GRAMMAR_INVALID` (with the reason), `NO_TOKENIZER` (text options on a model without), `TEXT_TOO_LONG`,
   *   `ABORTED`.
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
   * @param options.signal takes effect before the load begins, and behind it: the adapter is closed then
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID` (damaged, or of another model), `UNSUPPORTED_MODEL`,
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
   * A context on this model: a KV cache, and a thread with its threadpool.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` (with the option and its bounds), `UNSUPPORTED_MODEL` (no weights, or no causal
   *   language model), `OUT_OF_MEMORY` (more cells than the machine has memory for), `CONTEXT_FAILED` (with llama.cpp's words),
   *   `ABORTED`.
   */
  async createContext(options: ContextOptions): Promise<Context> {
    return Context.create(this.#raw, this.info, options);
  }

  /** Closes the model's contexts, then frees it. Idempotent; resolves when the memory is free. */
  async close(): Promise<void> {
    this.#endsGeneration.clear();
    this.#texts.clear();
    return this.#raw.close();
  }

  /** As {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function wholeText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { ignoreBOM: true, fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
