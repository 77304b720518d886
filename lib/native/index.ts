/**
 * The low-level API: load, tokenize, decode, capture, restore. The template cache, sessions and agents use llama.cpp
 * only through these classes.
 *
 * @packageDocumentation
 * @module llama-headstart/native
 */
export { type ErrorCode, HeadstartError } from '../errors.js';
export type { Logger, LogLevel } from '../logger.js';
export type { DryOptions, MirostatOptions, SamplingOptions, XtcOptions } from '../sampling-options.js';
export { selectGpu } from './addon.js';
export * from './context.js';
export * from './file-lock.js';
export type { GrammarTrigger, TemplatePattern } from './grammar-trigger.js';
export type { Gpu } from './loader.js';
export { setNativeLogger } from './log.js';
export * from './lora.js';
export * from './model.js';
export * from './model-info.js';
export type { GpuKind } from './places.js';
export {
  jsonSchemaToGrammar,
  type ParsedReply,
  type ParseRequest,
  type ReplyFormat,
  type ReplyParser,
  type ReplyToolCall,
} from './reply.js';
export * from './sampler.js';
export * from './state.js';
export * from './system.js';
