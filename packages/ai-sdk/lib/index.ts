/**
 * The provider for AI SDK 7, which implements version 4 of the AI SDK's specification. For AI SDK 6, import from
 * `@llama-headstart/ai-sdk/v3`.
 *
 * @packageDocumentation
 * @module @llama-headstart/ai-sdk
 */
import type { LanguageModelV4 } from '@ai-sdk/provider';
import { HeadstartLanguageModel } from './language-model.js';
import type { LlamaHeadstartSettings } from './model-source.js';
import { makeProvider, type Provider } from './provider.js';

export type { LlamaHeadstartSettings } from './model-source.js';
export type { LlamaHeadstartCallOptions, LlamaHeadstartMessageOptions } from './provider-options.js';

/** A provider for AI SDK 7. */
export interface LlamaHeadstartProvider extends Provider<'v4', LanguageModelV4> {}

class ModelV4 extends HeadstartLanguageModel implements LanguageModelV4 {
  readonly specificationVersion = 'v4';
}

/**
 * Makes a provider for AI SDK 7 whose models run in this process.
 *
 * @example
 * await using headstart = createLlamaHeadstart({ model: { source: 'model.gguf' } });
 * const { text } = await generateText({ model: headstart(), prompt: 'What is a KV cache?' });
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function createLlamaHeadstart(settings: LlamaHeadstartSettings): LlamaHeadstartProvider {
  return makeProvider('v4', settings, (source, modelId) => new ModelV4(source, modelId));
}
