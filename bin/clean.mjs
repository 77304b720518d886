// `llama-headstart clean` removes the builds from the user's cache directory. It keeps models and template caches.

import { existsSync } from 'node:fs';
import { rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { userCache } from '../dist/native/places.js';

/** @param {string[]} args */
export async function clean(args) {
  if (args.length > 0) throw new Error(`Expected no further arguments, got ${args.join(' ')}.`);
  for (const name of ['builds', 'build-trees']) {
    const directory = join(userCache(), name);
    if (existsSync(directory)) process.stdout.write(`removing ${directory}\n`);
    await rm(directory, { recursive: true, force: true });
  }
  // Removes the cache directory itself only if it is empty.
  await rmdir(userCache()).catch(() => {});
}
