// Downloads other versions of Node.js for tests, from the npm packages node-<platform>-<arch>.

import { chmod } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { mustRun, npm, quoteTail } from '../../bin/lib/run.mjs';
import { ensureTool } from './tools.mjs';

/** One release of each even major version of Node.js since 20: the newest release when this list was written. */
export const NODE_VERSIONS = ['20.20.2', '22.23.3', '24.21.0', '26.10.0'];

/**
 * @param {string} version
 * @param {string} [platform] "linux-arm64"; default: this machine's
 * @returns {Promise<string>} the path of the program
 */
export async function ensureNode(version, platform = `${process.platform}-${process.arch}`) {
  const directory = await ensureTool(`node-${version}-${platform}`, async (empty) => {
    const name = `node-${platform.replace('win32', 'win')}@${version}`;
    const work = dirname(empty);
    const pack = await npm(['pack', name, '--pack-destination', work, '--json', '--loglevel=error'], { cwd: work });
    if (pack.code !== 0) throw new Error(`\`npm pack ${name}\` failed (${pack.code})${quoteTail(pack.output)}`);
    const [{ filename }] = JSON.parse(pack.stdout);
    await mustRun('tar', ['-xzf', join(work, filename), '-C', empty, '--strip-components=1']);
  });
  const program = join(directory, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
  await chmod(program, 0o755);
  return program;
}
