import { createHash, type Hash } from 'node:crypto';
import type { ContextInfo } from '../native/context.js';
import type { ModelInfo } from '../native/model.js';

/** Bump when an older package must not read what this one writes. */
export const ENTRY_FORMAT = 1;

/** All that changes the bytes of a KV state, but the tokens themselves. Named, so that a miss can be explained. */
export interface KeyComponents {
  /** The entry format's number. */
  format: number;
  /** llama.cpp's version. */
  llamaVersion: string;
  /** Of the model: see `fingerprintModel`. */
  fingerprint: string;
  /** Element type of the K cache. */
  keyType: string;
  /** Element type of the V cache. */
  valueType: string;
  /** `LLAMA_ATTN_ROT_DISABLE` changes what is stored for quantised caches. */
  rotationDisabled: string;
  /** One KV cache that sequences share, or streams. */
  layout: 'unified' | 'split';
  /** Streams of the KV cache: 1 when unified, else one for each sequence. */
  streams: number;
  /** Whether it is on. */
  flashAttention: boolean;
  /** How positions beyond the training length are computed; `model` is what the model file says. */
  ropeScaling: string;
  /** RoPE base frequency. */
  ropeFrequencyBase: number;
  /** RoPE frequency scale. */
  ropeFrequencyScale: number;
  /** Models with long and short RoPE factors choose by the cells that a sequence may use. */
  ropeFactors: 'none' | 'short' | 'long';
  /** Whether all cells of sliding-window layers are kept. */
  fullSlidingWindow: boolean;
  /** In `reproducible` mode: ubatch size, where prefill is cut, layers on a GPU, backends and CPU features. Else empty. */
  reproducible: string;
  /** Adapters' content hashes and scales. */
  lora: readonly string[];
  /** Salt: entries of one tenant never serve another. */
  tenant: string;
}

/** What a key's components are made of. */
export interface KeyInputs {
  /** As `systemInfo()` has it. */
  llamaVersion: string;
  /** As {@link fingerprintModel} makes it. */
  fingerprint: string;
  /** As `Model.info` has it. */
  model: ModelInfo;
  /** As `Model.metadata()` has it. */
  metadata: Record<string, string>;
  /** As `Context.info` has it. */
  context: ContextInfo;
  /** What else decides the last digits: see {@link reproducibleComponent}. @default nothing */
  reproducible?: string | undefined;
  /** See {@link loraComponent}. @default none */
  lora?: readonly string[];
}

/** Everything beside the tokens that changes KV bytes, by name. */
export function keyComponents({
  llamaVersion,
  fingerprint,
  model,
  metadata,
  context,
  reproducible = '',
  lora = [],
}: KeyInputs): KeyComponents {
  return {
    format: ENTRY_FORMAT,
    llamaVersion,
    fingerprint,
    keyType: context.keyType,
    valueType: context.valueType,
    rotationDisabled: process.env.LLAMA_ATTN_ROT_DISABLE ?? '',
    layout: context.kvLayout,
    streams: context.kvLayout === 'unified' ? 1 : context.maxSequences,
    flashAttention: context.flashAttention,
    ropeScaling: context.ropeScaling,
    ropeFrequencyBase: context.ropeFrequencyBase,
    ropeFrequencyScale: context.ropeFrequencyScale,
    ropeFactors: ropeFactors(model, metadata, context),
    fullSlidingWindow: context.fullSlidingWindow,
    reproducible,
    lora,
    tenant: '',
  };
}

/** What decides the last digits of what a context computes, beside the other components. */
export function reproducibleComponent(parts: {
  microBatchSize: number;
  /** Tokens from its start at which a prefill is cut. */
  pieceSize: number;
  gpuLayers: number;
  /** Backends and CPU features, as llama.cpp prints them. */
  features: string;
}): string {
  return `ubatch ${parts.microBatchSize}, cut ${parts.pieceSize}, GPU layers ${parts.gpuLayers}, ${parts.features.trim()}`;
}

/** SHA-256 (hex) over the components and the template's token ids. */
export function templateKey(components: KeyComponents, tokens: Int32Array): string {
  return digest(createHash('sha256').update(canonical(components)).update('\0'), tokens);
}

/** Names all components at once: entries of one group differ in their tokens only. 16 hex digits. */
export function groupOf(components: KeyComponents): string {
  return createHash('sha256').update(canonical(components)).digest('hex').slice(0, 16);
}

/** An adapter's part of the key: the order in which they are applied counts, and those of scale 0 are not applied. */
export function loraComponent(loras: readonly { contentHash: string; scale: number }[]): readonly string[] {
  return loras.filter(({ scale }) => scale !== 0).map(({ contentHash, scale }) => `${contentHash}@${scale}`);
}

/** The keys of one configuration and tenant. */
export class Keyring {
  readonly components: KeyComponents;
  readonly group: string;
  readonly #begun: Hash;

  /** @param tenant salts the keys; entries carry its hash, never its name */
  constructor(components: KeyComponents, tenant?: string) {
    const salt = tenant === undefined ? '' : createHash('sha256').update(`tenant\0${tenant}`).digest('hex');
    this.components = Object.freeze({ ...components, tenant: salt });
    this.group = groupOf(this.components);
    this.#begun = createHash('sha256').update(canonical(this.components)).update('\0');
  }

  /** As {@link templateKey}. */
  keyOf(tokens: Int32Array): string {
    return digest(this.#begun.copy(), tokens);
  }
}

function canonical(components: KeyComponents): string {
  return JSON.stringify(Object.fromEntries(Object.entries(components).sort(([a], [b]) => (a < b ? -1 : 1))));
}

function digest(hash: Hash, tokens: Int32Array): string {
  return hash.update(new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)).digest('hex');
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
