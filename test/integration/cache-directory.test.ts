// Tests the location of the cache directory, its permissions, and its content.
import { chmod, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { AgentServer } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { agentOptions, startOn, temporaryDirectory } from '../helpers/agents.js';
import { inOtherProcess } from '../helpers/processes.js';

describe('a cache directory', () => {
  it('is `cacheDir`, otherwise LLAMA_HEADSTART_CACHE_DIR, otherwise .cache/templates', async () => {
    const cwd = await temporaryDirectory();
    const { model, ...rest } = agentOptions();
    const { cacheDir: _, ...unset } = model;
    const foldersOfEntries = async (cacheDir: string | undefined, variable: string) => {
      const options = { ...rest, model: { ...unset, ...(cacheDir !== undefined && { cacheDir }) } };
      const { after } = await inOtherProcess(
        'agent',
        { options },
        { cwd, env: { LLAMA_HEADSTART_CACHE_DIR: variable } },
      );
      expect(after).toMatchObject({ misses: 1, saves: 1, entries: 1 });
      const files = await readdir(cwd, { recursive: true });
      const folders = files.filter((name) => name.endsWith('.kv')).map(dirname);
      await Promise.all((await readdir(cwd)).map((name) => rm(join(cwd, name), { recursive: true })));
      return folders;
    };
    expect(await foldersOfEntries(undefined, '')).toEqual([join('.cache', 'templates')]);
    expect(await foldersOfEntries(undefined, join(cwd, 'variable'))).toEqual(['variable']);
    expect(await foldersOfEntries(join(cwd, 'option'), join(cwd, 'variable'))).toEqual(['option']);
  });

  it('is refused if other users can write to it, unless `allowSharedDirectory` is set', async () => {
    const directory = join(await temporaryDirectory(), 'shared');
    await mkdir(directory);
    for (const mode of [0o777, 0o770, 0o1777]) {
      await chmod(directory, mode);
      await expect(AgentServer.initialize(agentOptions({ cacheDir: directory }))).rejects.toMatchObject({
        code: 'CACHE_DIR_SHARED',
        message: expect.stringMatching(/other users can write to .*its mode is .*chmod go-w.*allowSharedDirectory/),
      });
    }
    expect((await startOn(directory, { allowSharedDirectory: true })).cache).toBe('miss');
    await chmod(directory, 0o755); // other users may list the directory, because its files have mode 0600
    expect((await startOn(directory)).source).toBe('disk');
  });

  it('does not contain the name of a tenant', async () => {
    const directory = await temporaryDirectory();
    await startOn(directory, { tenant: 'acme-corporation' });
    const names = await readdir(directory);
    expect(names).toContainEqual(expect.stringMatching(/\.kv$/));
    for (const name of names) {
      expect((await readFile(join(directory, name))).includes('acme')).toBe(false);
    }
  });
});
