// The prebuilt addon of this checkout, as the loader would find it in an installed package.

import { execFileSync } from 'node:child_process';
import { root } from '../../bin/lib/run.mjs';

/**
 * node-gyp-build's own answer, with what was compiled in the checkout out of its way: it reads that variable once, so in a process
 * of its own.
 * @returns {string} the path of the .node file
 * @throws {Error} where there is none
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
    throw new Error('There is no prebuilt addon for this platform in prebuilds/: run `npm run build:prebuilt` first.');
  }
}
