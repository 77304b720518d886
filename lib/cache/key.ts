import { createHash, type Hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { ContextInfo } from '../native/context.js';
import type { ModelInfo } from '../native/model-info.js';

/**
 * Increase this number when the format of entries changes, so that older and newer versions of the package use separate
 * entries.
 */
export const ENTRY_FORMAT = 1;

const MAX_REMEMBERED_TENANTS = 1024;

/**
 * Everything that changes the bytes of a KV state, except the tokens. Each component has a name, so that the
 * explanation of a miss can name the component.
 */
export interface KeyComponents {
  /** Number of the entry format. */
  format: number;
  /** Version of llama.cpp. */
  llamaVersion: string;
  /** Fingerprint of the model: see `fingerprintModel`. */
  fingerprint: string;
  /** Element type of the K cache. */
  keyType: string;
  /** Element type of the V cache. */
  valueType: string;
  /** The environment variable `LLAMA_ATTN_ROT_DISABLE`, which changes the contents of quantized KV caches. */
  rotationDisabled: string;
  /**
   * The layout of the KV cache. With `unified`, all sequences share the cache. With `split`, each sequence has its own
   * stream.
   */
  layout: 'unified' | 'split';
  /** Number of streams in the KV cache: 1 if unified, otherwise the number of sequences. */
  streams: number;
  /** Whether flash attention is on. */
  flashAttention: boolean;
  /**
   * The RoPE scaling method, for positions beyond the training length. `model` means the method that the model file
   * names.
   */
  ropeScaling: string;
  /** RoPE base frequency. */
  ropeFrequencyBase: number;
  /** RoPE frequency scale. */
  ropeFrequencyScale: number;
  /**
   * The RoPE factors in use. If a model has long and short factors, the choice depends on the number of cells that a
   * sequence may use.
   */
  ropeFactors: 'none' | 'short' | 'long';
  /** Whether all cells of sliding-window layers are kept. */
  fullSlidingWindow: boolean;
  /**
   * In `reproducible` mode: micro-batch size, chunk size of the prefill, GPU layers, backends and CPU features.
   * Otherwise empty.
   */
  reproducible: string;
  /** Content hashes and scales of the adapters. */
  lora: readonly string[];
  /** A hash of the tenant's name, so that different tenants never share entries. Empty without a tenant. */
  tenant: string;
}

/** The inputs of {@link keyComponents}. */
export interface KeyInputs {
  /** `systemInfo().llamaVersion`. */
  llamaVersion: string;
  /** The result of `fingerprintModel`. */
  fingerprint: string;
  /** `Model.info`. */
  model: ModelInfo;
  /** The result of `Model.metadata()`. */
  metadata: Record<string, string>;
  /** The parameters of the context: `Context.info`. */
  context: ContextInfo;
  /** See {@link reproducibleComponent}. @default '' */
  reproducible?: string | undefined;
  /** See {@link loraComponent}. @default none */
  lora?: readonly string[];
}

/** Returns the components of a cache key besides the tokens. */
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

/**
 * Returns the value of {@link KeyComponents.reproducible}: everything that changes the last bits of computed values.
 */
export function reproducibleComponent(parts: {
  microBatchSize: number;
  /** A prefill is split after every `chunkSize` tokens, counted from its start. */
  chunkSize: number;
  gpuLayers: number;
  /** Backends and CPU features, as llama.cpp prints them. */
  features: string;
}): string {
  return `ubatch ${parts.microBatchSize}, cut ${parts.chunkSize}, GPU layers ${parts.gpuLayers}, ${parts.features.trim()}`;
}

/** SHA-256 (hex) over the components and the template's token ids. */
export function templateKey(components: KeyComponents, tokens: Int32Array): string {
  return digest(createHash('sha256').update(canonical(components)).update('\0'), tokens);
}

/** A hash of all components, 16 hex digits. Entries of one group differ only in their tokens. */
export function groupOf(components: KeyComponents): string {
  return createHash('sha256').update(canonical(components)).digest('hex').slice(0, 16);
}

/**
 * Returns the value of {@link KeyComponents.lora}, in the order of the adapters. Leaves out an adapter with scale 0,
 * because it has no effect.
 */
export function loraComponent(loras: readonly { contentHash: string; scale: number }[]): readonly string[] {
  return loras.filter(({ scale }) => scale !== 0).map(({ contentHash, scale }) => `${contentHash}@${scale}`);
}

/** Computes the keys of one configuration and tenant. */
export class Keyring {
  readonly components: KeyComponents;
  readonly group: string;
  /** The hash of the components. To compute a key, a copy of this hash continues with the tokens. */
  readonly #hash: Hash;

  /**
   * @param tenant makes the keys differ from those of other tenants. Entries contain a hash of this name, never the
   *   name.
   */
  constructor(components: KeyComponents, tenant?: string) {
    const salt = tenant === undefined ? '' : createHash('sha256').update(`tenant\0${tenant}`).digest('hex');
    this.components = Object.freeze({ ...components, tenant: salt });
    this.group = groupOf(this.components);
    this.#hash = createHash('sha256').update(canonical(this.components)).update('\0');
  }

  /** Computes the same key as {@link templateKey}. */
  keyOf(tokens: Int32Array): string {
    return digest(this.#hash.copy(), tokens);
  }
}

/** The keyrings of all tenants of one configuration. */
export class Keyrings {
  readonly components: KeyComponents;
  readonly #withoutTenant: Keyring;
  readonly #byTenant: LRUCache<string, Keyring>;

  constructor(components: KeyComponents) {
    this.components = components;
    this.#withoutTenant = new Keyring(components);
    this.#byTenant = new LRUCache({
      max: MAX_REMEMBERED_TENANTS,
      memoMethod: (tenant) => new Keyring(components, tenant),
    });
  }

  of(tenant: string | undefined): Keyring {
    return tenant === undefined ? this.#withoutTenant : this.#byTenant.memo(tenant);
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
