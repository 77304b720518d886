// node scripts/micro-models/cli.mjs [DIR]: writes all micro models into DIR (default: micro-models in the system's
// temporary directory) and prints a line for each.

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateMicroModels, MICRO_MODELS } from './models.mjs';

const directory = process.argv[2] ?? join(tmpdir(), 'llama-headstart', 'micro-models');

await generateMicroModels(directory, {
  onProgress({ name, path, byteLength, written }) {
    const size = `${(byteLength / 2 ** 20).toFixed(2)} MiB`;
    console.log(`${written ? 'written' : 'there  '}  ${size}  ${path}  (${MICRO_MODELS[name]})`);
  },
});
