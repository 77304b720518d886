// Downloads emulators of other CPUs for tests. The emulators come from Debian packages, which are unpacked but not
// installed.

import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { quoteTail, run } from '../../bin/lib/run.mjs';
import { ensureTool } from './tools.mjs';

const PACKAGES = ['qemu-user-static', 'libc6-arm64-cross', 'libgcc-s1-arm64-cross', 'libstdc++6-arm64-cross'];

/**
 * @returns {Promise<{ x64: string, arm64: string, arm64Libraries: string }>} the paths of the emulators, and the
 *   directory for `qemu-aarch64 -L`
 * @throws {Error} if this machine cannot download or run the emulators
 */
export async function ensureEmulators() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error('emulators are available on Linux x64 only');
  if ((await run('apt-get', ['--version'])).code !== 0)
    throw new Error("apt-get, which downloads Debian's packages, is not installed");
  const directory = await ensureTool('emulators-1', async (empty) => {
    const work = dirname(empty);
    const download = await run('apt-get', ['download', ...PACKAGES], { cwd: work });
    if (download.code !== 0)
      throw new Error(`\`apt-get download\` failed (${download.code})${quoteTail(download.output, 3)}`);
    for (const name of (await readdir(work)).filter((file) => file.endsWith('.deb'))) {
      const unpack = await run('dpkg-deb', ['-x', join(work, name), empty]);
      if (unpack.code !== 0) throw new Error(`\`dpkg-deb -x ${name}\` failed${quoteTail(unpack.output, 3)}`);
    }
  });
  const programs = join(directory, 'usr', 'bin');
  const [x64, arm64] = ['qemu-x86_64', 'qemu-aarch64'].map((name) =>
    [join(programs, `${name}-static`), join(programs, name)].find((path) => existsSync(path)),
  );
  if (!x64 || !arm64)
    throw new Error(`expected Debian's packages to contain qemu-x86_64 and qemu-aarch64 in ${programs}`);
  return { x64, arm64, arm64Libraries: join(directory, 'usr', 'aarch64-linux-gnu') };
}
