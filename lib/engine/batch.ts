// What goes into the next decode: one token of each stream, then pieces of prompts.
import type { DecodeBatch } from '../native/context.js';
import type { Sampler } from '../native/sampler.js';
import type { Pending } from './request.js';
import type { Company } from './self-test.js';

/** A part of a request that goes into one batch. */
export interface Slice {
  pending: Pending;
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
  company?: Company | undefined;
  /** @default as there is room */
  pieceSize?: number | undefined;
}

/** A prompt gets at least so many tokens of a batch, or waits for the next: smaller pieces waste the weights' reading. */
const SMALLEST_PIECE = 32;

/**
 * Chooses from `queue`, which is in the order of who is to be served next: all single tokens, then prompts, each with an
 * equal share of the room and what others leave of theirs.
 */
export function planBatch(queue: readonly Pending[], limits: BatchLimits): Slice[] {
  const { batchSize, pieceSize = batchSize } = limits;
  const single = queue.find((pending) => pending.suspect) ?? loneOf(queue, limits.company);
  if (single !== undefined) {
    return [{ pending: single, count: Math.min(single.remaining, pieceSize) }];
  }
  const slices: Slice[] = [];
  const prompts: Pending[] = [];
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
  if (limits.company === undefined) {
    const room = batchSize - slices.length;
    const budget = slices.length > 0 ? Math.min(room, limits.promptBudget) : room;
    sharePrompts(slices, prompts, budget, limits.maxOutputs);
  }
  return slices;
}

/**
 * Where fewer cells are free than a batch takes: what fits of it, the oldest first, so that somebody gets to its end and frees
 * some. All of it where nothing fits.
 */
export function fitBatch(slices: readonly Slice[], freeCells: number): readonly Slice[] {
  const total = slices.reduce((sum, { count }) => sum + count, 0);
  if (total <= freeCells || freeCells <= 0) {
    return slices;
  }
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

/** Who is decoded alone, where not all may share a batch: whose turn it is. */
function loneOf(queue: readonly Pending[], company: Company | undefined): Pending | undefined {
  const [first] = queue;
  if (company === 'none' || (company === 'tokens' && first !== undefined && first.remaining > 1)) {
    return first;
  }
  return undefined;
}

function sharePrompts(slices: Slice[], prompts: readonly Pending[], budget: number, maxOutputs: number): void {
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

/** The batch as the context takes it, with the index of each slice's last row. */
export function buildBatch(slices: readonly Slice[]): { batch: DecodeBatch; lastRows: Int32Array } {
  const size = slices.reduce((total, { count }) => total + count, 0);
  const tokens = new Int32Array(size);
  const positions = new Int32Array(size);
  const sequences = new Int32Array(size);
  const outputs = new Uint8Array(size);
  const lastRows = new Int32Array(slices.length);
  const samplers: (Sampler | null)[] = [];
  let row = 0;
  slices.forEach(({ pending, count }, index) => {
    const { request, done } = pending;
    for (let each = 0; each < count; each++, row++) {
      tokens[row] = request.tokens[done + each] as number;
      positions[row] = request.from + done + each;
      sequences[row] = request.sequence;
    }
    lastRows[index] = row - 1;
    if (done + count === request.tokens.length) {
      outputs[row - 1] = 1;
      samplers.push(request.sampler ?? null);
    }
  });
  const chosen = samplers.some((sampler) => sampler !== null) ? samplers : undefined;
  return { batch: { tokens, positions, sequences, outputs, samplers: chosen }, lastRows };
}
