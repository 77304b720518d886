import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../../../bin/lib/make-directory.mjs';
import { mustRun } from '../../../bin/lib/run.mjs';

/**
 * Makes a git repository with one file.
 *
 * @param {string} directory
 * @param {{ text: string, subject: string }} content the text of README.md, and the subject of its commit
 */
export async function makeRepository(directory, { text, subject }) {
  await makeDirectory(directory);
  await writeFile(join(directory, 'README.md'), text);
  const git = (/** @type {string[]} */ ...args) => mustRun('git', args, { cwd: directory });
  await git('init', '--quiet', '--initial-branch', 'main');
  await git('add', '.');
  const author = ['-c', 'user.name=Ada', '-c', 'user.email=ada@example.invalid'];
  await git(...author, 'commit', '--quiet', '-m', subject);
}
