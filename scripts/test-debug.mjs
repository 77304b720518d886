// `npm run test:debug [-- vitest arguments]`: the tests of the low-level API, children and workers too, on a debug build: this
// package's own sources without optimisation and with assertions, among them that no KV byte enters the JavaScript heap.

import { join } from 'node:path';
import { isMain, root, runMain } from '../bin/lib/run.mjs';
import { testAssertingAddon } from './lib/asserting-addon.mjs';

/** How much longer than on a release build a test may take. */
const PATIENCE = 4;

if (isMain(import.meta)) {
  await runMain(() =>
    testAssertingAddon(
      'native addon for debugging',
      { debug: true, output: join(root, '.build/debug/addon') },
      PATIENCE,
    ),
  );
}
