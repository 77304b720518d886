/**
 * The provider for AI SDK 6, which implements version 3 of the AI SDK's specification.
 *
 * @packageDocumentation
 * @module @llama-headstart/ai-sdk/v3
 */
import type { LanguageModelV3 } from '@ai-sdk/provider';
import { HeadstartLanguageModel } from './language-model.js';
import type { LlamaHeadstartSettings } from './model-source.js';
import { makeProvider, type Provider } from './provider.js';

export type { LlamaHeadstartSettings } from './model-source.js';
export type { LlamaHeadstartCallOptions, LlamaHeadstartMessageOptions } from './provider-options.js';

/** A provider for AI SDK 6. */
export interface LlamaHeadstartProvider extends Provider<'v3', LanguageModelV3> {}

class ModelV3 extends HeadstartLanguageModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3';
}

/**
 * Makes a provider for AI SDK 6 whose models run in this process.
 *
 * @example
 * await using headstart = createLlamaHeadstart({ model: { source: 'model.gguf' } });
 * const { text } = await generateText({ model: headstart(), prompt: 'What is a KV cache?' });
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function createLlamaHeadstart(settings: LlamaHeadstartSettings): LlamaHeadstartProvider {
  return makeProvider('v3', settings, (source, modelId) => new ModelV3(source, modelId));
}
