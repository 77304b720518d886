// Finds the prebuilt addon of this checkout in the same way as the loader finds it in an installed package.

import { execFileSync } from 'node:child_process';
import { root } from '../../bin/lib/run.mjs';

/**
 * Asks node-gyp-build for the addon. The variable PREBUILDS_ONLY makes node-gyp-build ignore the addon in build/.
 * node-gyp-build runs in a separate process, because it reads the variable only once.
 * @returns {string} the path of the .node file
 * @throws {Error} if there is no prebuilt addon for this platform
 */
export function prebuiltAddon() {
  try {
    return execFileSync(process.execPath, ['-p', "require('node-gyp-build').resolve('.')"], {
      cwd: root,
      env: { ...process.env, PREBUILDS_ONLY: '1' },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    throw new Error('There is no prebuilt addon for this platform in prebuilds/. Run `npm run build:prebuilt` first.');
  }
}
