import { existsSync } from 'node:fs';
import { rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { userCache } from '../../native/places.js';
import { command } from '../command.js';

export const clean = command({
  name: 'clean',
  summary: 'removes the addons that `build` compiled, of all versions',
  details: ['Models and cached templates stay.'],
  arguments: {},
  options: {},
  examples: [{ line: 'clean', about: 'Remove all builds.' }],
  json: { removed: 'the removed directories' },
  async run({ output }) {
    const removed: string[] = [];
    for (const name of ['builds', 'build-trees']) {
      const directory = join(userCache(), name);
      if (existsSync(directory)) {
        removed.push(directory);
      }
      await rm(directory, { recursive: true, force: true });
    }
    // Removes the cache directory itself only if it is empty.
    await rmdir(userCache()).catch(() => undefined);
    output.result({ removed }, () => removed.map((directory) => `removing ${directory}`));
  },
});
