import { describe, expect, it } from 'vitest';
import { releaseProblems } from '../../scripts/check-release.mjs';

const changelog =
  '# Changelog\n\n## [1.2.0] - 2026-11-24\n\n### Added\n\n- Something.\n\n## [1.1.0] - unreleased\n\n- Old.\n';

const origin = 'someone/llama-headstart';
const repository = { url: `git+https://github.com/${origin}.git` };
const problems = (release: { tag: string; version: string; changelog: string }) =>
  releaseProblems({ repository, origin, ...release });

describe('a release', () => {
  it('is allowed if the tag, package.json and the changelog have the same version', () => {
    expect(problems({ tag: 'v1.2.0', version: '1.2.0', changelog })).toEqual([]);
  });

  it('is refused with a reason if tag and version differ, or if the changelog has no section, date or entries', () => {
    expect(problems({ tag: 'v1.2.1', version: '1.2.0', changelog })).toEqual([
      'the tag is v1.2.1, but package.json has version 1.2.0',
    ]);
    expect(problems({ tag: 'v1.1.0', version: '1.1.0', changelog })).toEqual([
      'CHANGELOG.md has no date for 1.1.0: "## [1.1.0] - unreleased"',
    ]);
    expect(problems({ tag: 'v2.0.0', version: '2.0.0', changelog })).toEqual(['CHANGELOG.md has no section for 2.0.0']);
    const silent = '## [3.0.0] - 2026-12-01\n\n## [2.0.0] - 2026-11-01\n\n- Old.\n';
    expect(problems({ tag: 'v3.0.0', version: '3.0.0', changelog: silent })).toEqual([
      'CHANGELOG.md has no entries for 3.0.0',
    ]);
  });

  it('is refused if a package beside the core has another version', () => {
    const packages = [
      { name: '@l/a', version: '1.2.0' },
      { name: '@l/b', version: '1.1.0' },
    ];
    expect(releaseProblems({ tag: 'v1.2.0', version: '1.2.0', changelog, repository, origin, packages })).toEqual([
      '@l/b has version 1.1.0, but package.json has version 1.2.0',
    ]);
  });

  it('is refused if the repository in package.json is not the repository that publishes the release', () => {
    const release = { tag: 'v1.2.0', version: '1.2.0', changelog };
    const problemsOf = (named: { url?: string } | undefined, publisher: string | undefined = origin) =>
      releaseProblems({ ...release, repository: named, origin: publisher });
    expect(problemsOf(undefined)).toEqual(['package.json has no `repository.url`, which provenance needs']);
    expect(problemsOf(repository, 'another/llama-headstart')).toEqual([
      `package.json has the repository ${repository.url}, but another/llama-headstart publishes the release`,
    ]);
    expect(problemsOf({ url: 'https://github.com/Someone/llama-headstart' })).toEqual([]);
    expect(releaseProblems({ ...release, repository, origin: undefined })).toEqual([]);
  });
});
