// What goes into the next decode: one token of each stream, then pieces of prompts.
import type { DecodeBatch } from '../native/context.js';
import type { Sampler } from '../native/sampler.js';
import type { PendingRequest } from './decode-request.js';
import type { BatchInvariance } from './reproducible/self-test.js';

/** A part of a request that goes into one batch. */
export interface Slice {
  pending: PendingRequest;
  count: number;
}

export interface BatchLimits {
  /** Most tokens. */
  batchSize: number;
  /** Most output rows. */
  maxOutputs: number;
  /** Most prompt tokens beside streams: what keeps them flowing. */
  promptBudget: number;
  /** Where not all may share a batch: pieces of prompts, of `pieceSize` tokens, are decoded alone. @default all may */
  invariance?: BatchInvariance | undefined;
  /** There, whether the newest decode was of such a piece: then streams come before the next. @default false */
  afterChunk?: boolean;
  /** @default as there is room */
  chunkSize?: number | undefined;
}

/** A prompt gets at least so many tokens of a batch, or waits for the next: smaller pieces waste the weights' reading. */
const SMALLEST_PIECE = 32;

/**
 * Chooses from `queue`, which is in the order of who is to be served next: all single tokens, then prompts, each with an
 * equal share of the room and what others leave of theirs.
 */
export function planBatch(queue: readonly PendingRequest[], limits: BatchLimits): Slice[] {
  const { batchSize, chunkSize: pieceSize = batchSize } = limits;
  const single = queue.length === 1 ? queue[0] : (queue.find(isSuspect) ?? loneOf(queue, limits));
  if (single !== undefined) {
    return [{ pending: single, count: Math.min(single.remaining, pieceSize) }];
  }
  const slices: Slice[] = [];
  const prompts: PendingRequest[] = [];
  const taken = new Set<number>();
  for (const pending of queue) {
    if (taken.has(pending.request.sequence)) {
      continue; // a later request of the same sequence
    }
    taken.add(pending.request.sequence);
    if (pending.remaining > 1) {
      prompts.push(pending);
    } else if (slices.length < Math.min(limits.batchSize, limits.maxOutputs)) {
      slices.push({ pending, count: 1 });
    }
  }
  const [prompt] = prompts;
  if (limits.invariance !== undefined && slices.length === 0 && prompt !== undefined) {
    return [{ pending: prompt, count: Math.min(prompt.remaining, pieceSize) }]; // who would stream waits behind it
  }
  if (limits.invariance === undefined && prompts.length > 0) {
    const room = batchSize - slices.length;
    const budget = slices.length > 0 ? Math.min(room, limits.promptBudget) : room;
    sharePrompts(slices, prompts, budget, limits.maxOutputs);
  }
  return slices;
}

const isSuspect = (pending: PendingRequest) => pending.suspect;

/** Tokens in a batch. */
export function countTokens(slices: readonly Slice[]): number {
  let count = 0;
  for (const slice of slices) {
    count += slice.count;
  }
  return count;
}

/**
 * Where fewer cells are free than a batch takes: what fits of it, the oldest first, so that somebody gets to its end and frees
 * some.
 */
export function fitBatch(slices: readonly Slice[], freeCells: number): Slice[] {
  let left = freeCells;
  const fitting: Slice[] = [];
  for (const { pending, count } of [...slices].sort((a, b) => a.pending.age - b.pending.age)) {
    const taken = Math.min(count, left);
    if (taken > 0) {
      fitting.push({ pending, count: taken });
      left -= taken;
    }
  }
  return fitting;
}

/** Who is decoded alone, where not all may share a batch: whose turn it is. Streams that may share one flow between two pieces. */
function loneOf(queue: readonly PendingRequest[], { invariance: company, afterChunk: afterPiece = false }: BatchLimits): PendingRequest | undefined {
  const [first] = queue;
  if (company === 'tokens') {
    const isPiece = first !== undefined && isPrompt(first) && !(afterPiece && !queue.every(isPrompt));
    return isPiece ? first : undefined;
  }
  return company === 'none' ? first : undefined;
}

const isPrompt = (pending: PendingRequest) => pending.remaining > 1;

function sharePrompts(slices: Slice[], prompts: readonly PendingRequest[], budget: number, maxOutputs: number): void {
  const share = Math.max(SMALLEST_PIECE, Math.floor(budget / Math.max(1, prompts.length)));
  let left = budget;
  const outputs = () => slices.length; // at most one row each
  const pieces: Slice[] = [];
  for (const pending of prompts) {
    const count = Math.min(pending.remaining, share, left);
    if (count > 0 && outputs() < maxOutputs) {
      const piece = { pending, count };
      pieces.push(piece);
      slices.push(piece);
      left -= count;
    }
  }
  for (const piece of pieces) {
    const more = Math.min(piece.pending.remaining - piece.count, left);
    piece.count += more;
    left -= more;
  }
}

/**
 * Writes batches as the context takes them, into arrays that it uses again: the context has read a batch when `decode` returns.
 * Between two steps the processor waits, and arrays that native code reads are costly to make.
 */
export class BatchWriter {
  readonly #all: Arrays;
  /** The first of them, as many as the batch before had: most have as many as that. */
  #used: Arrays;

  /** @param most tokens in a batch */
  constructor(most: number) {
    this.#all = {
      tokens: new Int32Array(most),
      positions: new Int32Array(most),
      sequences: new Int32Array(most),
      outputs: new Uint8Array(most),
    };
    this.#used = this.#all;
  }

  /** It is good until the next one is written. */
  write(slices: readonly Slice[], signal?: AbortSignal): DecodeBatch {
    const { tokens, positions, sequences, outputs } = this.#all;
    let row = 0;
    let samplers: (Sampler | null)[] | undefined;
    let rows = 0;
    for (const { pending, count } of slices) {
      const { request, done } = pending;
      for (let index = done; index < done + count; index++, row++) {
        tokens[row] = request.tokens[index] as number;
        positions[row] = request.from + index;
        sequences[row] = request.sequence;
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
    const used = this.#first(row);
    // Field by field: an object that is spread and then added to gets a shape of its own each time.
    return {
      tokens: used.tokens,
      positions: used.positions,
      sequences: used.sequences,
      outputs: used.outputs,
      samplers,
      signal,
    };
  }

  #first(count: number): Arrays {
    if (this.#used.tokens.length !== count) {
      const { tokens, positions, sequences, outputs } = this.#all;
      this.#used = {
        tokens: tokens.subarray(0, count),
        positions: positions.subarray(0, count),
        sequences: sequences.subarray(0, count),
        outputs: outputs.subarray(0, count),
      };
    }
    return this.#used;
  }
}

type Arrays = Pick<DecodeBatch, 'tokens' | 'positions' | 'sequences' | 'outputs'>;
