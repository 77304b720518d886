// Tests `makeDirectory`, which creates missing parents too, and `replaceFile`, which replaces a file atomically.
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeDirectory, replaceFile, replaceText } from 'llama-headstart/internal';
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
  it('creates all missing parents and keeps existing directories', async () => {
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

  it('succeeds in simultaneous calls for the same directories', async () => {
    const directory = await temporaryDirectory();
    await Promise.all(Array.from({ length: 20 }, (_, index) => make(join(directory, 'a', 'b', 'c', `${index % 4}`))));
    expect(await readdir(join(directory, 'a', 'b', 'c'))).toEqual(['0', '1', '2', '3']);
  });

  it('follows links to directories', async () => {
    const directory = await temporaryDirectory();
    await mkdir(join(directory, 'there'));
    await symlink(join(directory, 'there'), join(directory, 'link'));
    await make(join(directory, 'link'));
    await make(join(directory, 'link', 'below'));
    expect(await readdir(join(directory, 'there'))).toEqual(['below']);
  });

  it('fails if a file or a dangling link is in the path', async () => {
    const directory = await temporaryDirectory();
    await writeFile(join(directory, 'file'), '');
    await symlink(join(directory, 'nowhere', 'at all'), join(directory, 'dangling'));
    expect(await failureOf(make(join(directory, 'file')))).toBe('EEXIST');
    expect(await failureOf(make(join(directory, 'file', 'a', 'b')))).toMatch(/ENOTDIR|EEXIST|ENOENT/);
    expect(await failureOf(make(join(directory, 'dangling')))).toBe('EEXIST');
    expect(await failureOf(make(join(directory, 'dangling', 'a', 'b')))).toBe('EEXIST');
    expect(existsSync(join(directory, 'nowhere'))).toBe(false);
  });

  it.runIf(process.platform === 'linux')('does not retry forever if the system refuses the directory', async () => {
    expect(await failureOf(make('/proc/headstart'))).toMatch(/ENOENT|EACCES/);
    expect(await failureOf(make('/proc/headstart/a/b'))).toMatch(/ENOENT|EACCES/);
    expect(await failureOf(make('/proc/self/fdinfo/a/b'))).toMatch(/ENOENT|EACCES|EPERM/);
  });

  it.skipIf(process.platform === 'win32')('fails in a read-only parent', async ({ skip }) => {
    skip(process.getuid?.() === 0, 'root can write to a read-only directory');
    const directory = await temporaryDirectory();
    await chmod(directory, 0o500);
    expect(await failureOf(make(join(directory, 'a', 'b')))).toBe('EACCES');
    await make(directory);
    await chmod(directory, 0o700);
  });
});

describe('makeDirectory', () => {
  it.skipIf(process.platform === 'win32')('gives every new directory the requested mode', async () => {
    const directory = await temporaryDirectory();
    await makeDirectory(join(directory, 'a', 'b'), 0o700);
    for (const name of ['a', 'a/b']) {
      expect((await stat(join(directory, name))).mode & 0o777).toBe(0o700);
    }
  });

  it('is used everywhere instead of the recursive mkdir of Node.js', async () => {
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

describe('replaceFile', () => {
  it('replaces the whole file and leaves no temporary file', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'file');
    await replaceText(path, 'a longer first text');
    await replaceText(path, 'second', { durable: false });
    const result = await replaceFile(path, async (temporary) => {
      expect(await readFile(path, 'utf8')).toBe('second'); // readers see the old file until the new one is complete
      await writeFile(temporary, 'third');
      return 5;
    });
    expect([result, await readFile(path, 'utf8'), await readdir(directory)]).toEqual([5, 'third', ['file']]);
  });

  it.skipIf(process.platform === 'win32')('gives a new file the requested mode', async () => {
    const directory = await temporaryDirectory();
    await replaceText(join(directory, 'private'), '');
    await replaceText(join(directory, 'readable'), '', {}, 0o444);
    const modes = await Promise.all(
      ['private', 'readable'].map(async (name) => (await stat(join(directory, name))).mode & 0o777),
    );
    expect(modes).toEqual([0o600, 0o444]);
  });

  it('keeps the old file and leaves no temporary file if writing fails', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'file');
    await replaceText(path, 'old');
    const failing = (code: string) => async (temporary: string) => {
      await writeFile(temporary, 'half');
      throw Object.assign(new Error('failed'), { code });
    };
    await expect(replaceFile(path, failing('ENOSPC'))).rejects.toMatchObject({ code: 'DISK_FULL' });
    await expect(replaceFile(path, failing('EIO'))).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    await expect(replaceText(join(directory, 'missing', 'file'), '')).rejects.toMatchObject({ code: 'WRITE_FAILED' });
    expect([await readFile(path, 'utf8'), await readdir(directory)]).toEqual(['old', ['file']]);
  });

  it('lets many writers replace one file at the same time', async () => {
    const directory = await temporaryDirectory();
    const path = join(directory, 'file');
    const texts = Array.from({ length: 20 }, (_, index) => String(index).repeat(1000 * (index + 1)));
    await Promise.all(texts.map((text) => replaceText(path, text, { durable: false })));
    expect(texts).toContain(await readFile(path, 'utf8'));
    expect(await readdir(directory)).toEqual(['file']);
  });
});
