// `node scripts/check-release.mjs vX.Y.Z`: a release's tag, package.json and CHANGELOG name the same version, and the changelog says
// when and what.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isMain, root, runMain } from '../bin/lib/run.mjs';

/**
 * @param {object} release
 * @param {string} release.tag
 * @param {string} release.version
 * @param {string} release.changelog
 * @param {{ url?: string } | undefined} release.repository as package.json has it
 * @param {string | undefined} release.origin the repository that releases, "owner/name"; undefined: not known
 * @returns {string[]} what does not agree
 */
export function releaseProblems({ tag, version, changelog, repository, origin }) {
  const problems = repositoryProblems(repository?.url, origin);
  if (tag !== `v${version}`) problems.push(`the tag is ${tag}, package.json says ${version}`);
  const at = changelog.indexOf(`## [${version}]`);
  if (at === -1) return [...problems, `CHANGELOG.md has no section for ${version}`];
  const [heading = '', ...lines] = changelog.slice(at).split('\n');
  if (!/ - \d{4}-\d{2}-\d{2}$/.test(heading)) problems.push(`CHANGELOG.md gives ${version} no date: "${heading}"`);
  const end = lines.findIndex((line) => line.startsWith('## '));
  const entries = lines.slice(0, end === -1 ? undefined : end).filter((line) => line.startsWith('- '));
  if (entries.length === 0) problems.push(`CHANGELOG.md says nothing of ${version}`);
  return problems;
}

/** npm proves where a package comes from only where the package says the same. @param {string | undefined} url @param {string | undefined} origin */
function repositoryProblems(url, origin) {
  if (!url) return ['package.json has no `repository.url`, which provenance needs'];
  if (origin && !new RegExp(`[/:]${origin}(\\.git)?$`, 'i').test(url)) {
    return [`package.json names the repository ${url}, and ${origin} releases`];
  }
  return [];
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const tag = process.argv[2] ?? '';
    const { version, repository } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    const changelog = await readFile(join(root, 'CHANGELOG.md'), 'utf8');
    const problems = releaseProblems({ tag, version, changelog, repository, origin: process.env.GITHUB_REPOSITORY });
    if (problems.length > 0) throw new Error(`This is not a release yet: ${problems.join('; ')}.`);
    process.stdout.write(`${tag} agrees with package.json and CHANGELOG.md\n`);
  });
}
