// Opens labs that are closed when the test ends, and lists the entries of their cache directories.
import { readdir } from 'node:fs/promises';
import { onTestFinished } from 'vitest';
import { Lab, type LabOptions, someTokens } from './lab.js';
import { microModel } from './models.js';

/** Opens a lab that is closed when the test ends. The default model is the micro model `dense`. */
export async function openLab(options: Partial<LabOptions> = {}): Promise<Lab> {
  const lab = await Lab.open({ path: microModel('dense'), ...options });
  onTestFinished(() => lab.close());
  return lab;
}

/** Returns the sorted file names of the entries in a cache directory. */
export async function entriesIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => name.endsWith('.kv')).sort();
}

/** Returns a template of pseudo-random tokens. Each seed gives a different template. */
export const numberedTemplate = (seed: number, count = 100): Int32Array => someTokens(count, seed);

/** Starts a numbered template, waits until the template is saved, and returns its key. */
export async function save(lab: Lab, seed: number, count?: number): Promise<string> {
  const { key } = await lab.start(numberedTemplate(seed, count));
  await lab.cache.flush();
  return key;
}
