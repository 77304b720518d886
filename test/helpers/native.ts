// Functions that many tests of the low-level API use.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HeadstartError } from 'llama-headstart';
import type { Context, DecodeBatch, SequenceState } from 'llama-headstart/native';
import { afterAll } from 'vitest';

/**
 * Returns the code of the HeadstartError that `work` throws or rejects with, or `'none'` if it succeeds. Rethrows other
 * errors.
 */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'none';
  } catch (error) {
    if (HeadstartError.isInstance(error)) return error.code;
    throw error;
  }
}

/**
 * Returns a Mulberry32 generator of pseudo-random numbers from 0 to 1. A seed gives the same numbers on every machine.
 */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns `count` pseudo-random token ids below `size`. The same seed gives the same ids. */
export function someTokens(count: number, size: number, seed = 1): Int32Array {
  const random = seededRandom(seed);
  return Int32Array.from({ length: count }, () => Math.floor(random() * size));
}

/** Returns a batch with the next tokens of one sequence. The batch requests output for the last token. */
export function batchOf(sequence: number, from: number, tokens: Int32Array): DecodeBatch {
  const outputs = new Uint8Array(tokens.length);
  outputs[tokens.length - 1] = 1;
  return {
    tokens,
    positions: Int32Array.from(tokens, (_, index) => from + index),
    sequences: new Int32Array(tokens.length).fill(sequence),
    outputs,
  };
}

/** Decodes `tokens` in batches of at most `info.batchSize` tokens, and returns the most likely next token. */
export async function prefill(context: Context, sequence: number, tokens: Int32Array, from = 0): Promise<number> {
  const step = context.info.batchSize;
  let picked = -1;
  for (let start = 0; start < tokens.length; start += step) {
    [picked = -1] = await context.decode(batchOf(sequence, from + start, tokens.subarray(start, start + step)));
  }
  return picked;
}

/** Decodes `tokens` one by one from position `from` on, and returns the logits after each token. */
export async function logitsOf(
  context: Context,
  sequence: number,
  tokens: Int32Array,
  from: number,
): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (const [step, token] of tokens.entries()) {
    await context.decode(batchOf(sequence, from + step, Int32Array.of(token)));
    all.push(await context.logits(0));
  }
  return all;
}

/** Decodes `first` at position `from` and continues greedily. Returns the logits after each of `steps` tokens. */
export async function continueGreedily(
  context: Context,
  sequence: number,
  from: number,
  first: number,
  steps = 8,
): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  let token = first;
  for (let step = 0; step < steps; step++) {
    const [picked = -1] = await context.decode(batchOf(sequence, from + step, Int32Array.of(token)));
    all.push(await context.logits(0));
    token = picked;
  }
  return all;
}

/** Lists the steps in which any bit of the logits differs, with the largest difference. */
export function differences(actual: readonly Float32Array[], expected: readonly Float32Array[]): string[] {
  return expected.flatMap((row, step) => {
    const other = actual[step] ?? new Float32Array(0);
    if (Buffer.compare(Buffer.from(row.buffer), Buffer.from(other.buffer)) === 0) return [];
    const largest = row.reduce((max, value, at) => Math.max(max, Math.abs(value - (other[at] ?? Number.NaN))), 0);
    return [`step ${step}: ${largest}`];
  });
}

/** Returns the largest difference between two logits of the same step and token. */
export function largestDifference(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  const differencesOf = (row: Float32Array, other: Float32Array = new Float32Array()) =>
    Array.from(row, (value, at) => Math.abs(value - (other[at] ?? Number.NaN)));
  return Math.max(...expected.flatMap((row, step) => differencesOf(row, actual[step])));
}

/** Prefills `tokens`, captures the state, and empties the sequence. */
export async function captureOf(context: Context, tokens: Int32Array, sequence = 0): Promise<SequenceState> {
  await prefill(context, sequence, tokens);
  const state = await context.captureSequence(sequence, tokens);
  await context.removeSequence(sequence);
  return state;
}

const temporaryDirectories: string[] = [];

// This module registers the hook when it is loaded, because vitest ignores an afterAll inside a hook or a test.
afterAll(() => {
  for (const directory of temporaryDirectories) {
    rmSync(directory, { recursive: true, force: true });
  }
});

/** Makes a directory that is removed after all tests of the file. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-test-'));
  temporaryDirectories.push(directory);
  return directory;
}
