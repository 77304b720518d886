// Labs that close when their test ends, and what is in their directory.
import { readdir } from 'node:fs/promises';
import { onTestFinished } from 'vitest';
import { Lab, type LabOptions, someTokens } from './lab.js';
import { microModel } from './models.js';

/** A lab on the `dense` micro model, where no other is named; it closes when the test ends. */
export async function openLab(options: Partial<LabOptions> = {}): Promise<Lab> {
  const lab = await Lab.open({ path: microModel('dense'), ...options });
  onTestFinished(() => lab.close());
  return lab;
}

/** Names of the entries' files in a cache directory, sorted. */
export async function entriesIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.kv')).sort();
}

/** A template of raw tokens. */
export const numberedTemplate = (seed: number, count = 100): Int32Array => someTokens(count, seed);

/** Starts a numbered template, waits for its save, and returns its key. */
export async function save(lab: Lab, seed: number, count?: number): Promise<string> {
  const { key } = await lab.start(numberedTemplate(seed, count));
  await lab.cache.flush();
  return key;
}
