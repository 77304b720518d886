// A language model of the AI SDK, without the version of the specification.
import { randomUUID } from 'node:crypto';
import { errorOf } from './abort.js';
import type { ModelSource } from './model-source.js';
import { PROVIDER } from './provider-options.js';
import { contentOf, endingOf } from './reply.js';
import { ReplySource } from './reply-source.js';
import { readCall } from './request.js';
import type { CallOptions, GenerateResult, ResponseMetadata, StreamPart, StreamResult } from './specification.js';

/** Answers the calls of the AI SDK with a model of this process. */
export class HeadstartLanguageModel {
  /** The name of the provider. */
  readonly provider = PROVIDER;
  /** All addresses of files count as supported. Otherwise the AI SDK would download files that are refused afterwards. */
  readonly supportedUrls: Record<string, RegExp[]> = { '*/*': [/^/] };
  readonly #source: ModelSource;
  readonly #name: string | undefined;

  /** @param name the name of the model. @default the model's own name */
  constructor(source: ModelSource, name?: string) {
    this.#source = source;
    this.#name = name;
  }

  /** The name of the model. */
  get modelId(): string {
    return this.#name ?? this.#source.id;
  }

  /**
   * Generates a whole reply.
   *
   * @throws HeadstartError as `AgentServer.chat` and, on the first use, as `AgentServer.initialize`. The reason of
   *   `abortSignal` if it fires. UnsupportedFunctionalityError for files and images.
   */
  async doGenerate(options: CallOptions): Promise<GenerateResult> {
    const { request, warnings } = readCall(options);
    try {
      const model = await this.#source.model(options.abortSignal);
      const response = this.#response();
      const reply = await model.chat(request).result;
      return {
        content: contentOf(reply),
        ...endingOf(reply, isHinted(request)),
        warnings,
        request: { body: request },
        response,
      };
    } catch (error) {
      throw errorOf(error, options.abortSignal);
    }
  }

  /**
   * Generates a reply as a stream. Resolves when the prompt is known to fit into the context. Later errors are parts of
   * the stream.
   *
   * @throws HeadstartError as {@link doGenerate}.
   */
  async doStream(options: CallOptions): Promise<StreamResult> {
    const { abortSignal: signal, includeRawChunks: withRawParts = false } = options;
    const { request, warnings } = readCall(options);
    try {
      const model = await this.#source.model(signal);
      const head: StreamPart[] = [
        { type: 'stream-start', warnings },
        { type: 'response-metadata', ...this.#response() },
      ];
      let accept = () => {};
      const accepted = new Promise<void>((resolve) => {
        accept = resolve;
      });
      const reply = model.chat({ ...request, onPrompt: () => accept() });
      const source = new ReplySource(reply, { head, signal, isHinted: isHinted(request), withRawParts });
      await Promise.race([accepted, source.begun()]);
      return { stream: new ReadableStream(source, { highWaterMark: 0 }), request: { body: request } };
    } catch (error) {
      throw errorOf(error, signal);
    }
  }

  #response(): ResponseMetadata {
    return { id: randomUUID(), modelId: this.modelId, timestamp: new Date() };
  }
}

function isHinted({ cacheHints = [] }: { cacheHints?: readonly object[] | undefined }): boolean {
  return cacheHints.length > 0;
}
