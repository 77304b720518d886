// A provider of the AI SDK, without the version of the specification.
import { NoSuchModelError } from '@ai-sdk/provider';
import { type LlamaHeadstartSettings, ModelSource } from './model-source.js';

/** Makes language models for the AI SDK. All of them are the same model, which runs in this process. */
export interface Provider<Version extends string, Model> {
  /**
   * Makes a language model.
   *
   * @param modelId a name for the model in results and telemetry. @default the model's own name
   */
  (modelId?: string): Model;
  /** The version of the AI SDK's specification. */
  readonly specificationVersion: Version;
  /** The same as a call of the provider. */
  languageModel(modelId?: string): Model;
  /**
   * Always fails, because the model makes no embeddings.
   *
   * @throws NoSuchModelError
   */
  embeddingModel(modelId: string): never;
  /**
   * Always fails, because the model makes no images.
   *
   * @throws NoSuchModelError
   */
  imageModel(modelId: string): never;
  /**
   * Closes the agent that the provider has started. Calls in progress end with `CLOSED`. An agent that the program
   * passed stays open. Idempotent.
   */
  close(): Promise<void>;
  /** Calls {@link close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function makeProvider<Version extends string, Model>(
  specificationVersion: Version,
  settings: LlamaHeadstartSettings,
  makeModel: (source: ModelSource, modelId: string | undefined) => Model,
): Provider<Version, Model> {
  const source = new ModelSource(settings);
  const languageModel = (modelId?: string) => makeModel(source, modelId);
  const close = () => source.close();
  return Object.assign((modelId?: string) => languageModel(modelId), {
    specificationVersion,
    languageModel,
    embeddingModel: (modelId: string) => refuse(modelId, 'embeddingModel'),
    imageModel: (modelId: string) => refuse(modelId, 'imageModel'),
    close,
    [Symbol.asyncDispose]: close,
  });
}

function refuse(modelId: string, modelType: 'embeddingModel' | 'imageModel'): never {
  throw new NoSuchModelError({ modelId, modelType });
}
