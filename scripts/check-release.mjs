// `node scripts/check-release.mjs vX.Y.Z`: checks that the tag, package.json and CHANGELOG.md of a release have the
// same version. Also checks that CHANGELOG.md has a date and entries for this version.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isMain, root, runMain } from '../bin/lib/run.mjs';

/**
 * @param {object} release
 * @param {string} release.tag
 * @param {string} release.version
 * @param {string} release.changelog
 * @param {{ url?: string } | undefined} release.repository the `repository` of package.json
 * @param {string | undefined} release.origin the repository that publishes the release, "owner/name"; undefined if
 *   unknown
 * @param {{ name: string, version: string }[]} [release.packages] the packages that are published together with the core
 * @returns {string[]} the reasons why this release must not be published; empty if there are none
 */
export function releaseProblems({ tag, version, changelog, repository, origin, packages = [] }) {
  const problems = repositoryProblems(repository?.url, origin);
  if (tag !== `v${version}`) problems.push(`the tag is ${tag}, but package.json has version ${version}`);
  for (const each of packages.filter((other) => other.version !== version)) {
    problems.push(`${each.name} has version ${each.version}, but package.json has version ${version}`);
  }
  const start = changelog.indexOf(`## [${version}]`);
  if (start === -1) return [...problems, `CHANGELOG.md has no section for ${version}`];
  const [heading = '', ...lines] = changelog.slice(start).split('\n');
  if (!/ - \d{4}-\d{2}-\d{2}$/.test(heading)) problems.push(`CHANGELOG.md has no date for ${version}: "${heading}"`);
  const end = lines.findIndex((line) => line.startsWith('## '));
  const entries = lines.slice(0, end === -1 ? undefined : end).filter((line) => line.startsWith('- '));
  if (entries.length === 0) problems.push(`CHANGELOG.md has no entries for ${version}`);
  return problems;
}

/**
 * Returns the problems of the package's repository address. npm accepts a package with provenance only if its
 * `repository.url` is the repository that publishes the package.
 * @param {string | undefined} url @param {string | undefined} origin
 */
function repositoryProblems(url, origin) {
  if (!url) return ['package.json has no `repository.url`, which provenance needs'];
  if (origin && !new RegExp(`[/:]${origin}(\\.git)?$`, 'i').test(url)) {
    return [`package.json has the repository ${url}, but ${origin} publishes the release`];
  }
  return [];
}

/** @param {string} folder a folder in packages/ */
async function readPackage(folder) {
  return JSON.parse(await readFile(join(root, 'packages', folder, 'package.json'), 'utf8'));
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const tag = process.argv[2] ?? '';
    const { version, repository } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    const changelog = await readFile(join(root, 'CHANGELOG.md'), 'utf8');
    const origin = process.env.GITHUB_REPOSITORY;
    const packages = await Promise.all((await readdir(join(root, 'packages'))).map(readPackage));
    const problems = releaseProblems({ tag, version, changelog, repository, origin, packages });
    if (problems.length > 0) throw new Error(`${tag} cannot be released: ${problems.join('; ')}.`);
    process.stdout.write(`${tag} agrees with package.json and CHANGELOG.md\n`);
  });
}
