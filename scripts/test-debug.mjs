// `npm run test:debug [-- vitest arguments]`: runs the tests of the low-level API on a debug build. Child processes and
// workers of the tests also use this build. In a debug build, this package's sources are compiled without optimization
// and with assertions. One assertion checks that no KV byte enters the JavaScript heap.

import { join } from 'node:path';
import { isMain, root, runMain } from '../bin/lib/run.mjs';
import { testAssertingAddon } from './lib/asserting-addon.mjs';

/** The factor for the time limits of tests, compared with a release build. */
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
