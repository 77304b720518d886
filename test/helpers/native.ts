// Short words for what tests of the low-level API do all the time.
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Context, DecodeBatch, SequenceState } from 'llama-headstart/native';
import { HeadstartError } from 'llama-headstart/native';
import { afterAll } from 'vitest';

/** The code of the HeadstartError that `work` throws or rejects with; `'none'` for success; other errors pass. */
export async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
    return 'none';
  } catch (error) {
    if (HeadstartError.isInstance(error)) return error.code;
    throw error;
  }
}

/** Mulberry32: the same numbers from 0 to 1 for the same seed, everywhere. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` token ids below `size`, the same for the same seed. */
export function someTokens(count: number, size: number, seed = 1): Int32Array {
  const random = seededRandom(seed);
  return Int32Array.from({ length: count }, () => Math.floor(random() * size));
}

/** A batch of one sequence's next tokens; output for the last of them. */
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

/** Decodes `tokens` in batches that fit, and returns the likeliest next token. */
export async function prefill(context: Context, sequence: number, tokens: Int32Array, from = 0): Promise<number> {
  const step = context.info.batchSize;
  let picked = -1;
  for (let at = 0; at < tokens.length; at += step) {
    [picked = -1] = await context.decode(batchOf(sequence, from + at, tokens.subarray(at, at + step)));
  }
  return picked;
}

/** Decodes `first` at position `from` and goes on greedily: the logits behind each of `steps` tokens. */
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

/** Prefills `tokens` and captures them: a state and nothing left in the sequence. */
export async function captureOf(context: Context, tokens: Int32Array, sequence = 0): Promise<SequenceState> {
  await prefill(context, sequence, tokens);
  const state = await context.captureSequence(sequence, tokens);
  await context.removeSequence(sequence);
  return state;
}

const temporaryDirectories: string[] = [];

// Registered as a test file is read: from inside a hook or a test vitest would not call it.
afterAll(() => {
  for (const each of temporaryDirectories) {
    rmSync(each, { recursive: true, force: true });
  }
});

/** A directory that goes with the test file. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'llama-headstart-test-'));
  temporaryDirectories.push(directory);
  return directory;
}
