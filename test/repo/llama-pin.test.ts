// `npm run update:llama` takes versions from llama.cpp's tree itself, not from the names of packages.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readBundle, requireVersion } from '../../scripts/update-llama-pin.mjs';

const root = fileURLToPath(new URL('../../', import.meta.url));
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'llama-headstart-pin-'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Makes a package like node-llama-cpp. The package contains a git bundle of a tree with the version v0.6.0. */
function packageWithBundle(): { path: string; tree: string } {
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
      cwd: join(directory, 'tree'),
      encoding: 'utf8',
    });
  mkdirSync(join(directory, 'tree'));
  const version = ['MAJOR 0', 'MINOR 6', 'PATCH 0'].map((part) => `set(LLAMA_VERSION_${part})\n`).join('');
  writeFileSync(join(directory, 'tree', 'CMakeLists.txt'), version);
  git('init', '--quiet');
  git('add', '.');
  git('commit', '--quiet', '-m', 'a release');
  mkdirSync(join(directory, 'package', 'llama'), { recursive: true });
  git('bundle', 'create', '--quiet', join(directory, 'package', 'llama', 'gitRelease.bundle'), 'HEAD');
  writeFileSync(join(directory, 'package', 'package.json'), '{ "name": "carrier", "version": "1.0.0" }');
  execFileSync('tar', ['-czf', 'carrier-1.0.0.tgz', 'package'], { cwd: directory });
  return { path: join(directory, 'carrier-1.0.0.tgz'), tree: git('rev-parse', 'HEAD^{tree}').trim() };
}

describe('npm run update:llama', () => {
  it("reads the tree's hash and version from the package's bundle", async () => {
    const { path, tree } = packageWithBundle();
    expect(await readBundle(path, 'package/llama/gitRelease.bundle')).toEqual({ tree, version: 'v0.6.0' });
    await expect(readBundle(path, 'package/elsewhere.bundle')).rejects.toThrow(/elsewhere/);
  });

  it('refuses a package that contains another version', () => {
    expect(() => requireVersion('v0.7.0', 'carrier@1.0.0', 'v0.6.0')).toThrow(
      'Expected carrier@1.0.0 to contain llama.cpp v0.7.0, got v0.6.0. Name another package with --npm.',
    );
    expect(() => requireVersion('v0.6.0', 'carrier@1.0.0', 'v0.6.0')).not.toThrow();
  });

  it.each(['', 'latest'])('refuses %j, which is not a tag, and changes nothing', (tag) => {
    const pin = () => readFileSync(join(root, 'scripts', 'llama-pin.json'), 'utf8');
    const before = pin();
    const run = () =>
      execFileSync(process.execPath, [join(root, 'scripts', 'update-llama-pin.mjs'), tag], {
        encoding: 'utf8',
        stdio: 'pipe',
      });
    expect(run).toThrow(/Expected llama.cpp's tag, such as v0.6.0/);
    expect(pin()).toBe(before);
  });
});
