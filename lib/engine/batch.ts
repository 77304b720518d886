// Chooses the tokens of the next decode: one token of each reply, then chunks of prompts.
import type { DecodeBatch } from '../native/context.js';
import type { Sampler } from '../native/sampler.js';
import type { PendingRequest } from './decode-request.js';
import { isOvertakenBy } from './overtaking.js';
import type { BatchInvariance } from './reproducible/self-test.js';
import type { Sequence } from './sequence.js';

/** The part of a request that is in one batch. */
export interface Slice {
  pending: PendingRequest;
  /** Number of tokens, from `pending.done` on. */
  count: number;
}

export interface BatchLimits {
  /** Maximum tokens in a batch. */
  batchSize: number;
  /** Maximum output rows in a batch. */
  maxOutputs: number;
  /** Maximum prompt tokens in a batch that also contains tokens of replies, so that replies keep streaming. */
  promptBudget: number;
  /** Maximum prompt tokens in any batch. @default `batchSize` */
  maxPromptTokens?: number;
  /**
   * With `reproducible`: which requests may share a batch. Chunks of prompts are always decoded alone.
   *
   * @default all requests may share batches
   */
  invariance?: BatchInvariance | undefined;
  /**
   * With `invariance`: whether the newest decode was a prompt chunk. If so, replies are decoded next.
   *
   * @default false
   */
  afterChunk?: boolean;
  /** Maximum tokens in a chunk of a prompt. @default `batchSize` */
  chunkSize?: number | undefined;
  /** The time in ms, for {@link isOvertakenBy}. */
  now(): number;
}

/** Minimum tokens of a prompt in a batch. Each batch reads all weights once, so smaller chunks would be inefficient. */
const MIN_CHUNK = 32;

/**
 * Chooses the requests of the next batch: all single tokens, then prompts, both in the order of `queue`. Prompts get
 * equal shares of the rest of the batch. If a prompt does not need its whole share, the other prompts get the
 * unused part. A prompt is left out while another prompt overtakes it.
 */
export function planBatch(queue: readonly PendingRequest[], limits: BatchLimits): Slice[] {
  const { batchSize, chunkSize = batchSize, maxPromptTokens = batchSize } = limits;
  const single = queue.length === 1 ? queue[0] : (queue.find(isSuspect) ?? soloRequest(queue, limits));
  if (single !== undefined) {
    return [{ pending: single, count: Math.min(single.remaining, chunkSize, maxPromptTokens) }];
  }
  const slices: Slice[] = [];
  const prompts: PendingRequest[] = [];
  const sequences = new Set<Sequence>();
  for (const pending of queue) {
    if (sequences.has(pending.request.sequence)) {
      continue; // an earlier request of this sequence is already in the batch
    }
    sequences.add(pending.request.sequence);
    if (pending.remaining > 1) {
      prompts.push(pending);
    } else if (slices.length < Math.min(limits.batchSize, limits.maxOutputs)) {
      slices.push({ pending, count: 1 });
    }
  }
  const [prompt] = prompts;
  if (limits.invariance !== undefined && slices.length === 0 && prompt !== undefined) {
    return [{ pending: prompt, count: Math.min(prompt.remaining, chunkSize) }];
  }
  if (limits.invariance === undefined && prompts.length > 0) {
    const free = Math.min(batchSize - slices.length, maxPromptTokens);
    const budget = slices.length > 0 ? Math.min(free, limits.promptBudget) : free;
    sharePrompts(slices, withoutOvertaken(prompts, limits), budget, limits.maxOutputs);
  }
  return slices;
}

const isSuspect = (pending: PendingRequest) => pending.suspect;

/** The number of tokens in a batch. */
export function countTokens(slices: readonly Slice[]): number {
  let count = 0;
  for (const slice of slices) {
    count += slice.count;
  }
  return count;
}

/**
 * The part of a batch that fits into the free KV cells. Older requests go first, so that they finish and release their
 * cells sooner.
 */
export function fitBatch(slices: readonly Slice[], freeCells: number): Slice[] {
  let left = freeCells;
  const fitting: Slice[] = [];
  for (const { pending, count } of [...slices].sort((a, b) => a.pending.age - b.pending.age)) {
    const fits = Math.min(count, left);
    if (fits > 0) {
      fitting.push({ pending, count: fits });
      left -= fits;
    }
  }
  return fitting;
}

/**
 * With `invariance`: the request that must be decoded alone now, if any. Prompt chunks alternate with batches of
 * replies.
 */
function soloRequest(
  queue: readonly PendingRequest[],
  { invariance, afterChunk = false }: BatchLimits,
): PendingRequest | undefined {
  const [first] = queue;
  if (invariance === 'tokens') {
    const isChunk = first !== undefined && isPrompt(first) && !(afterChunk && !queue.every(isPrompt));
    return isChunk ? first : undefined;
  }
  return invariance === 'none' ? first : undefined;
}

const isPrompt = (pending: PendingRequest) => pending.remaining > 1;

function withoutOvertaken(prompts: readonly PendingRequest[], { now }: BatchLimits): readonly PendingRequest[] {
  if (prompts.length < 2) {
    return prompts;
  }
  const time = now();
  const isOvertaken = ({ request: { sequence } }: PendingRequest) =>
    prompts.some(({ request }) => isOvertakenBy(sequence, request.sequence, time));
  return prompts.filter((pending) => !isOvertaken(pending));
}

function sharePrompts(slices: Slice[], prompts: readonly PendingRequest[], budget: number, maxOutputs: number): void {
  const share = Math.max(MIN_CHUNK, Math.floor(budget / prompts.length));
  let left = budget;
  const chunks: Slice[] = [];
  for (const pending of prompts) {
    const count = Math.min(pending.remaining, share, left);
    if (count > 0 && slices.length < maxOutputs) {
      // each slice has at most one output row
      const chunk = { pending, count };
      chunks.push(chunk);
      slices.push(chunk);
      left -= count;
    }
  }
  for (const chunk of chunks) {
    const more = Math.min(chunk.pending.remaining - chunk.count, left);
    chunk.count += more;
    left -= more;
  }
}

/**
 * Writes batches in the form that the context expects. All batches share the same arrays, because new arrays for native
 * code are expensive, and no decode runs while they are created. Sharing is safe: when `decode` returns its promise,
 * the context has already read the batch.
 */
export class BatchWriter {
  readonly #all: Arrays;
  /** Views of the first elements. The views are reused as long as the batch size stays the same, as it usually does. */
  #views: Arrays;

  /** @param maxTokens maximum tokens in a batch */
  constructor(maxTokens: number) {
    this.#all = {
      tokens: new Int32Array(maxTokens),
      positions: new Int32Array(maxTokens),
      sequences: new Int32Array(maxTokens),
      outputs: new Uint8Array(maxTokens),
    };
    this.#views = this.#all;
  }

  /** Writes a batch, which is valid until the next call. */
  write(slices: readonly Slice[], signal?: AbortSignal): DecodeBatch {
    const { tokens, positions, sequences, outputs } = this.#all;
    let row = 0;
    let samplers: (Sampler | null)[] | undefined;
    let rows = 0;
    for (const { pending, count } of slices) {
      const { request, done } = pending;
      const { id, length } = request.sequence;
      for (let index = 0; index < count; index++, row++) {
        tokens[row] = request.tokens[done + index] as number;
        positions[row] = length + index;
        sequences[row] = id;
        outputs[row] = 0;
      }
      if (done + count === request.tokens.length) {
        outputs[row - 1] = 1;
        if (request.sampler) {
          samplers ??= new Array<null>(rows).fill(null);
        }
        samplers?.push(request.sampler ?? null);
        rows++;
      }
    }
    const views = this.#viewsOf(row);
    // Written field by field, so that all batches have one hidden class. A spread would create a new one each time.
    return {
      tokens: views.tokens,
      positions: views.positions,
      sequences: views.sequences,
      outputs: views.outputs,
      samplers,
      signal,
    };
  }

  #viewsOf(count: number): Arrays {
    if (this.#views.tokens.length !== count) {
      const { tokens, positions, sequences, outputs } = this.#all;
      this.#views = {
        tokens: tokens.subarray(0, count),
        positions: positions.subarray(0, count),
        sequences: sequences.subarray(0, count),
        outputs: outputs.subarray(0, count),
      };
    }
    return this.#views;
  }
}

type Arrays = Pick<DecodeBatch, 'tokens' | 'positions' | 'sequences' | 'outputs'>;
