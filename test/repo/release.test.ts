import { describe, expect, it } from 'vitest';
import { releaseProblems } from '../../scripts/check-release.mjs';

const changelog =
  '# Changelog\n\n## [1.2.0] - 2026-11-24\n\n### Added\n\n- Something.\n\n## [1.1.0] - unreleased\n\n- Old.\n';

const origin = 'someone/llama-headstart';
const repository = { url: `git+https://github.com/${origin}.git` };
const problems = (release: { tag: string; version: string; changelog: string }) =>
  releaseProblems({ repository, origin, ...release });

describe('a release', () => {
  it('goes out where tag, package.json and changelog agree', () => {
    expect(problems({ tag: 'v1.2.0', version: '1.2.0', changelog })).toEqual([]);
  });

  it('is held back, with every reason, where they do not', () => {
    expect(problems({ tag: 'v1.2.1', version: '1.2.0', changelog })).toEqual([
      'the tag is v1.2.1, package.json says 1.2.0',
    ]);
    expect(problems({ tag: 'v1.1.0', version: '1.1.0', changelog })).toEqual([
      'CHANGELOG.md gives 1.1.0 no date: "## [1.1.0] - unreleased"',
    ]);
    expect(problems({ tag: 'v2.0.0', version: '2.0.0', changelog })).toEqual(['CHANGELOG.md has no section for 2.0.0']);
    const silent = '## [3.0.0] - 2026-12-01\n\n## [2.0.0] - 2026-11-01\n\n- Old.\n';
    expect(problems({ tag: 'v3.0.0', version: '3.0.0', changelog: silent })).toEqual([
      'CHANGELOG.md says nothing of 3.0.0',
    ]);
  });

  it('names the repository that it comes from, which npm holds against the proof', () => {
    const release = { tag: 'v1.2.0', version: '1.2.0', changelog };
    const told = (own: { url?: string } | undefined, by: string | undefined = origin) =>
      releaseProblems({ ...release, repository: own, origin: by });
    expect(told(undefined)).toEqual(['package.json has no `repository.url`, which provenance needs']);
    expect(told(repository, 'another/llama-headstart')).toEqual([
      `package.json names the repository ${repository.url}, and another/llama-headstart releases`,
    ]);
    expect(told({ url: 'https://github.com/Someone/llama-headstart' })).toEqual([]);
    expect(releaseProblems({ ...release, repository, origin: undefined })).toEqual([]);
  });
});
