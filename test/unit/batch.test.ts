import fc from 'fast-check';
import {
  type Arrival,
  type BatchLimits,
  BatchWriter,
  type EngineContext,
  fitBatch,
  PendingRequest,
  planBatch,
  Sequence,
} from 'llama-headstart/internal';
import { beforeEach, describe, expect, it } from 'vitest';

const sequences = new Map<number, Sequence>();
beforeEach(() => sequences.clear());

/** Returns the sequence with this id. The tests decode nothing, so its engine context has only one field. */
function sequenceOf(id: number, arrival?: Arrival): Sequence {
  const sequence = sequences.get(id) ?? new Sequence({ keepsPrefillLog: false } as EngineContext, { arrival });
  sequences.set(id, sequence);
  sequence.assign(id);
  return sequence;
}

/**
 * Returns a request of `count` tokens. Its sequence already holds 10 tokens that were copied, and the request's first
 * `done` tokens.
 */
function pendingOf(id: number, count: number, done = 0, arrival?: Arrival): PendingRequest {
  const tokens = Int32Array.from({ length: count }, (_, index) => 100 * id + index);
  const sequence = sequenceOf(id, arrival);
  sequence.append(new Int32Array(10 + done), Math.min(sequence.length, 10 + done), 10 + done);
  sequence.hasBegun = done > 0;
  const pending = new PendingRequest({ sequence, tokens }, id);
  pending.done = done;
  return pending;
}

const LIMITS = { batchSize: 512, maxOutputs: 256, promptBudget: 64, now: () => 1000 };
const counts = (queue: PendingRequest[], limits: BatchLimits = LIMITS) =>
  planBatch(queue, limits).map(({ pending, count }) => [pending.request.sequence.id, count]);
const idsIn = (queue: PendingRequest[], limits?: BatchLimits) => counts(queue, limits).map(([id]) => id);

const TITLE: Arrival = { hasTools: false, at: 0 };
const MAIN: Arrival = { hasTools: true, at: 0 };

describe('a batch', () => {
  it('is filled by one prompt if there is no other request', () => {
    expect(counts([pendingOf(0, 2000)])).toEqual([[0, 512]]);
  });

  it('starts with one token of each reply, and gives prompts at most `promptBudget` tokens beside replies', () => {
    expect(counts([pendingOf(0, 2000), pendingOf(1, 1), pendingOf(2, 1)])).toEqual([
      [1, 1],
      [2, 1],
      [0, 64],
    ]);
  });

  it('is divided equally between prompts, and long prompts get the tokens that short prompts do not need', () => {
    expect(counts([pendingOf(0, 2000), pendingOf(1, 20), pendingOf(2, 2000)])).toEqual([
      [0, 170 + 152],
      [1, 20],
      [2, 170],
    ]);
  });

  it('contains at most one request of each sequence', () => {
    expect(counts([pendingOf(0, 1), pendingOf(0, 1)])).toEqual([[0, 1]]);
  });

  it('that follows a prompt chunk contains only replies if prompt chunks are decoded alone', () => {
    const queue = [pendingOf(0, 2000), pendingOf(1, 2000), pendingOf(2, 1), pendingOf(3, 1)];
    const limits = { ...LIMITS, invariance: 'tokens', chunkSize: 128 } as const;
    expect(counts(queue, limits)).toEqual([[0, 128]]);
    expect(counts(queue, { ...limits, afterChunk: true })).toEqual([
      [2, 1],
      [3, 1],
    ]);
    expect(counts(queue.slice(0, 2), { ...limits, afterChunk: true })).toEqual([[0, 128]]);
    const sameSequence = [pendingOf(0, 2000), pendingOf(0, 1)];
    expect(counts(sameSequence, { ...limits, afterChunk: true })).toEqual([[0, 128]]);
    expect(counts(queue.slice(2), limits)).toEqual([
      [2, 1],
      [3, 1],
    ]);
    expect(counts(queue, { ...limits, invariance: 'none', afterChunk: true })).toEqual([[0, 128]]);
  });

  it('contains no other request beside a request that may have made the previous batch fail', () => {
    const suspect = pendingOf(1, 1);
    suspect.suspect = true;
    expect(counts([pendingOf(0, 1), suspect])).toEqual([[1, 1]]);
  });

  it('leaves out a prompt without tools that has not begun while a prompt with tools is prefilled', () => {
    const queue = [pendingOf(0, 400, 0, TITLE), pendingOf(1, 300, 0, MAIN), pendingOf(2, 100)];
    expect(idsIn(queue)).toEqual([1, 2]);
    expect(idsIn(queue, { ...LIMITS, now: () => 2000 })).toEqual([0, 1, 2]);
    expect(idsIn([pendingOf(3, 400, 16, TITLE), queue[1] as PendingRequest])).toEqual([3, 1]);
    (queue[0] as PendingRequest).request.sequence.group = 'other';
    expect(idsIn(queue)).toEqual([0, 1, 2]);
  });

  it('contains the next piece of a prompt without tools beside a prompt with tools', () => {
    const begun = pendingOf(0, 400, 0, TITLE);
    begun.request.sequence.append(Int32Array.of(7), 0, 1); // the last token of the first piece
    expect(idsIn([begun, pendingOf(1, 300, 0, MAIN)])).toEqual([0, 1]);
  });

  it('has output only for the last token of a request', () => {
    const batch = new BatchWriter(16).write([
      { pending: pendingOf(0, 5, 1), count: 2 },
      { pending: pendingOf(1, 3, 1), count: 2 },
    ]);
    expect(batch).toEqual({
      tokens: Int32Array.of(1, 2, 101, 102),
      positions: Int32Array.of(11, 12, 11, 12),
      sequences: Int32Array.of(0, 0, 1, 1),
      outputs: Uint8Array.of(0, 0, 0, 1),
      samplers: undefined,
      signal: undefined,
    });
  });

  it('contains no data of the previous batch', () => {
    const writer = new BatchWriter(16);
    writer.write([
      { pending: pendingOf(3, 1), count: 1 },
      ...[4, 5].map((id) => ({ pending: pendingOf(id, 1), count: 1 })),
    ]);
    const signal = new AbortController().signal;
    expect(writer.write([{ pending: pendingOf(1, 9, 2), count: 3 }], signal)).toEqual({
      tokens: Int32Array.of(102, 103, 104),
      positions: Int32Array.of(12, 13, 14),
      sequences: Int32Array.of(1, 1, 1),
      outputs: Uint8Array.of(0, 0, 0),
      samplers: undefined,
      signal,
    });
  });

  it('lists a sampler or null for each output row if any row has a sampler', () => {
    const slices = [0, 1, 2, 3].map((id) => ({ pending: pendingOf(id, id === 1 ? 5 : 1), count: 1 }));
    const sampler = {} as never;
    Object.assign(slices[2]?.pending.request ?? {}, { sampler });
    expect(new BatchWriter(16).write(slices).samplers).toEqual([null, sampler, null]);
  });

  it('is cut to the number of free KV cells, and the oldest request gets its cells first', () => {
    const slices = [pendingOf(3, 20), pendingOf(1, 20), pendingOf(2, 1)].map((pending) => ({
      pending,
      count: pending.remaining,
    }));
    const fitted = (free: number) =>
      fitBatch(slices, free).map(({ pending, count }) => [pending.request.sequence.id, count]);
    expect(fitted(30)).toEqual([
      [1, 20],
      [2, 1],
      [3, 9],
    ]);
    expect(fitted(7)).toEqual([[1, 7]]);
  });

  it('stays within its limits and is never empty, for random queues of requests', () => {
    const request = fc.record({ sequence: fc.nat(20), count: fc.integer({ min: 1, max: 900 }) });
    const limits = fc.record({
      batchSize: fc.integer({ min: 1, max: 600 }),
      maxOutputs: fc.integer({ min: 1, max: 30 }),
      promptBudget: fc.integer({ min: 1, max: 600 }),
    });
    fc.assert(
      fc.property(fc.array(request, { minLength: 1, maxLength: 40 }), limits, (requests, { promptBudget, ...rest }) => {
        const queue = requests.map(({ sequence, count }) => pendingOf(sequence, count));
        const budget = Math.min(promptBudget, rest.batchSize);
        const slices = planBatch(queue, { ...LIMITS, ...rest, promptBudget: budget });
        const total = slices.reduce((sum, { count }) => sum + count, 0);
        expect(total).toBeGreaterThan(0);
        expect(total).toBeLessThanOrEqual(rest.batchSize);
        expect(slices.length).toBeLessThanOrEqual(rest.maxOutputs);
        expect(slices.every(({ pending, count }) => count >= 1 && count <= pending.remaining)).toBe(true);
        expect(new Set(slices.map(({ pending }) => pending.request.sequence)).size).toBe(slices.length);
      }),
    );
  });
});
