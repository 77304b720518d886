// Directories are made with their parents, and what cannot be made is an error at once.
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeDirectory } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { makeDirectory as makeDirectoryOfScripts } from '../../bin/lib/make-directory.mjs';
import { temporaryDirectory } from '../helpers/agents.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

const failureOf = (work: Promise<void>): Promise<string | undefined> =>
  work.then(
    () => undefined,
    (error: NodeJS.ErrnoException) => error.code,
  );

describe.each([
  ['of lib', makeDirectory],
  ['of scripts', makeDirectoryOfScripts],
])('makeDirectory %s', (_, make) => {
  it('makes all parents, and leaves what is there as it is', async () => {
    const directory = await temporaryDirectory();
    const deep = join(directory, 'a', 'b', 'c');
    await make(deep);
    await writeFile(join(deep, 'kept'), '');
    await make(deep);
    await make(`${deep}/`);
    await make(join(directory, 'a'));
    expect(await readdir(deep)).toEqual(['kept']);
    await make('/');
  });

  it('makes one directory for many that ask at the same time', async () => {
    const directory = await temporaryDirectory();
    await Promise.all(Array.from({ length: 20 }, (_, index) => make(join(directory, 'a', 'b', 'c', `${index % 4}`))));
    expect(await readdir(join(directory, 'a', 'b', 'c'))).toEqual(['0', '1', '2', '3']);
  });

  it('goes through links to directories', async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, 'there'));
    await symlink(join(directory, 'there'), join(directory, 'link'));
    await make(join(directory, 'link'));
    await make(join(directory, 'link', 'below'));
    expect(await readdir(join(directory, 'there'))).toEqual(['below']);
  });

  it('refuses a path with a file or a dangling link in it', async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, 'file'), '');
    await symlink(join(directory, 'nowhere', 'at all'), join(directory, 'dangling'));
    expect(await failureOf(make(join(directory, 'file')))).toBe('EEXIST');
    expect(await failureOf(make(join(directory, 'file', 'a', 'b')))).toMatch(/ENOTDIR|EEXIST|ENOENT/);
    expect(await failureOf(make(join(directory, 'dangling')))).toBe('EEXIST');
    expect(await failureOf(make(join(directory, 'dangling', 'a', 'b')))).toBe('EEXIST');
    expect(existsSync(join(directory, 'nowhere'))).toBe(false);
  });

  it.runIf(process.platform === 'linux')('refuses what the system never makes', async () => {
    expect(await failureOf(make('/proc/headstart'))).toMatch(/ENOENT|EACCES/);
    expect(await failureOf(make('/proc/headstart/a/b'))).toMatch(/ENOENT|EACCES/);
    expect(await failureOf(make('/proc/self/fdinfo/a/b'))).toMatch(/ENOENT|EACCES|EPERM/);
  });

  it.skipIf(process.platform === 'win32' || process.getuid?.() === 0)(
    'refuses a parent that is read-only',
    async () => {
      const directory = await temporaryDirectory();
      await chmod(directory, 0o500);
      expect(await failureOf(make(join(directory, 'a', 'b')))).toBe('EACCES');
      await make(directory);
      await chmod(directory, 0o700);
    },
  );
});

describe('makeDirectory', () => {
  it.skipIf(process.platform === 'win32')('gives the mode to every directory that it makes', async () => {
    const directory = await temporaryDirectory();
    await makeDirectory(join(directory, 'a', 'b'), 0o700);
    for (const made of ['a', 'a/b']) {
      expect((await stat(join(directory, made))).mode & 0o777).toBe(0o700);
    }
  });

  it('is what everything uses instead of the recursive mkdir of Node', async () => {
    const sources = ['lib', 'bin', 'scripts'].map(async (folder) =>
      (await readdir(join(root, folder), { recursive: true }))
        .filter((name) => /\.m?[jt]s$/.test(name))
        .map((name) => join(root, folder, name)),
    );
    const recursive = (
      await Promise.all(
        (
          await Promise.all(sources)
        )
          .flat()
          .map((path) =>
            readFile(path, 'utf8').then((text) =>
              /\bmkdir(Sync)?\([^;]*recursive: true/.test(text) ? path : undefined,
            ),
          ),
      )
    ).filter(Boolean);
    expect(recursive).toEqual([]);
  });
});
