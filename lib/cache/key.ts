import { createHash } from 'node:crypto';
import type { ContextInfo } from '../native/context.js';
import type { ModelInfo } from '../native/model.js';

/** Bump when an older package must not read what this one writes. */
export const ENTRY_FORMAT = 1;

/** All that changes the bytes of a KV state, but the tokens themselves. Named, so that a miss can be explained. */
export interface KeyComponents {
  format: number;
  llamaVersion: string;
  /** Of the model: see `fingerprintModel`. */
  fingerprint: string;
  keyType: string;
  valueType: string;
  /** `LLAMA_ATTN_ROT_DISABLE` changes what is stored for quantised caches. */
  rotationDisabled: string;
  layout: 'unified' | 'split';
  streams: number;
  flashAttention: boolean;
  ropeFrequencyBase: number;
  ropeFrequencyScale: number;
  /** Models with long and short RoPE factors choose by the cells that a sequence may use. */
  ropeFactors: 'none' | 'short' | 'long';
  fullSlidingWindow: boolean;
  /** Adapters' content hashes and scales. */
  lora: readonly string[];
  /** Salt: entries of one tenant never serve another. */
  tenant: string;
}

export interface KeyInputs {
  llamaVersion: string;
  fingerprint: string;
  model: ModelInfo;
  metadata: Record<string, string>;
  context: ContextInfo;
}

export function keyComponents({ llamaVersion, fingerprint, model, metadata, context }: KeyInputs): KeyComponents {
  return {
    format: ENTRY_FORMAT,
    llamaVersion,
    fingerprint,
    keyType: context.keyType,
    valueType: context.valueType,
    rotationDisabled: process.env.LLAMA_ATTN_ROT_DISABLE ?? '',
    layout: context.unified ? 'unified' : 'split',
    streams: context.unified ? 1 : context.maxSequences,
    flashAttention: context.flashAttention,
    ropeFrequencyBase: context.ropeFrequencyBase,
    ropeFrequencyScale: context.ropeFrequencyScale,
    ropeFactors: ropeFactors(model, metadata, context),
    fullSlidingWindow: context.fullSlidingWindow,
    lora: [],
    tenant: '',
  };
}

/** SHA-256 (hex) over the components and the template's token ids. */
export function templateKey(components: KeyComponents, tokens: Int32Array): string {
  const sorted = Object.fromEntries(Object.entries(components).sort(([a], [b]) => (a < b ? -1 : 1)));
  return createHash('sha256')
    .update(JSON.stringify(sorted))
    .update('\0')
    .update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength))
    .digest('hex');
}

function ropeFactors(
  model: ModelInfo,
  metadata: Record<string, string>,
  context: ContextInfo,
): KeyComponents['ropeFactors'] {
  const original = Number(metadata[`${model.architecture}.rope.scaling.original_context_length`]);
  if (!Number.isFinite(original) || original === 0) {
    return 'none';
  }
  return context.kvCellsPerSequence > original ? 'long' : 'short';
}
