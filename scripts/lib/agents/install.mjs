// Installs agents from the npm registry, each into a folder of its own in the user's cache.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { npm, quoteTail } from '../../../bin/lib/run.mjs';
import { ensureTool } from '../tools.mjs';

/**
 * Installs the packages of an agent, without their install scripts. The scripts only download files that the packages
 * contain.
 *
 * @param {string} name
 * @param {string} packageName
 * @param {string} version
 * @returns {Promise<string>} the folder that contains `node_modules`
 */
export async function installAgent(name, packageName, version) {
  return ensureTool(`agent-${name}-${version}`, async (directory) => {
    const specifier = `${packageName}@${version}`;
    const options = ['--prefix', directory, '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
    const result = await npm(['install', ...options, specifier], { cwd: directory });
    if (result.code !== 0) {
      throw new Error(`\`npm install ${specifier}\` failed (${result.code})${quoteTail(result.output)}`);
    }
  });
}

/** @param {string} packageName @returns {Promise<string | undefined>} undefined if the registry cannot be reached */
export async function latestVersion(packageName) {
  const { code, stdout } = await npm(['view', packageName, 'version', '--loglevel=error']);
  return code === 0 ? stdout.trim() : undefined;
}

/**
 * @param {string} directory the folder of an installed agent
 * @param {string} packageName
 * @returns {Promise<string>} the license that the package names, and the first line of its license file
 */
export async function licenseOf(directory, packageName) {
  const folder = join(directory, 'node_modules', packageName);
  const { license = 'not named' } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
  const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name));
  const [line = ''] = file === undefined ? [] : (await readFile(join(folder, file), 'utf8')).trim().split('\n');
  return line === '' ? license : `${license} (${line.trim()})`;
}
