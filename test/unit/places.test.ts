// Tests the path of the user's cache directory. The addon must load even if this directory is unusable.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { addonFolders, buildsDirectory, userCache } from 'llama-headstart/internal';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { userCache as userCacheOfScripts } from '../../scripts/lib/caches.mjs';

afterEach(() => vi.unstubAllEnvs());

/** Returns the path, or "refused" if `getPath` throws. */
const outcome = (getPath: () => string) => {
  try {
    return getPath();
  } catch {
    return 'refused';
  }
};

describe("the user's cache", () => {
  const cases: Record<string, string | undefined>[] = [
    {},
    { XDG_CACHE_HOME: join(tmpdir(), 'caches') },
    { XDG_CACHE_HOME: '' },
    { XDG_CACHE_HOME: 'relative/caches' },
    { LOCALAPPDATA: join(tmpdir(), 'caches') },
    { HOME: join(tmpdir(), 'ein Heim', 'für Ägäis 数') },
    { HOME: undefined, XDG_CACHE_HOME: undefined },
    { HOME: '', XDG_CACHE_HOME: undefined },
    { HOME: 'relative', XDG_CACHE_HOME: '' },
  ];

  it.each(cases)('is the same absolute directory for scripts and the loader, with the variables %j', (variables) => {
    for (const [name, value] of Object.entries(variables)) {
      vi.stubEnv(name, value);
    }
    const path = outcome(userCache);
    expect(outcome(userCacheOfScripts)).toBe(path);
    expect(path === 'refused' || isAbsolute(path), path).toBe(true);
  });

  it.skipIf(process.platform === 'win32')(
    'is refused without a home directory, and the error names the variable to set',
    () => {
      vi.stubEnv('HOME', '');
      vi.stubEnv('XDG_CACHE_HOME', '');
      expect(userCache).toThrow(/Expected a home directory for caches, but there is none. Set (XDG_CACHE_HOME|HOME)/);
      expect(userCache).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    },
  );
});

describe('the loader', () => {
  it.skipIf(process.platform !== 'linux')('ignores a cache that is missing, unreadable or without a path', async () => {
    const home = await mkdtemp(join(tmpdir(), 'llama-headstart-places-'));
    try {
      vi.stubEnv('XDG_CACHE_HOME', home);
      const without = addonFolders();
      expect(without.filter(({ source }) => source === 'build')).toEqual([]);
      // A file at the path of the folder makes listing fail, even for root.
      await mkdir(dirname(buildsDirectory()), { recursive: true });
      await writeFile(buildsDirectory(), '');
      expect(addonFolders()).toEqual(without);
      vi.stubEnv('XDG_CACHE_HOME', '');
      vi.stubEnv('HOME', '');
      expect(addonFolders()).toEqual(without);
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });

  it('finds only builds with an addon, not logs or unfinished builds', async () => {
    const home = await mkdtemp(join(tmpdir(), 'llama-headstart-places-'));
    try {
      for (const name of ['XDG_CACHE_HOME', 'HOME', 'LOCALAPPDATA']) {
        vi.stubEnv(name, home);
      }
      await mkdir(join(buildsDirectory(), 'portable'), { recursive: true });
      await writeFile(join(buildsDirectory(), 'portable.log'), '');
      await writeFile(join(buildsDirectory(), 'portable', 'build.json'), '{}');
      expect(addonFolders().filter(({ source }) => source === 'build')).toEqual([]);
      await writeFile(join(buildsDirectory(), 'portable', 'llama_headstart.node'), '');
      expect(addonFolders().filter(({ source }) => source === 'build')).toHaveLength(1);
    } finally {
      await rm(home, { recursive: true, force: true });
    }
  });
});
