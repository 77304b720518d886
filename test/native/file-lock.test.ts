// Only one owner holds a lock at a time, in this process and all others. A process that has ended holds no lock.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { FileLock } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { requireFreshDist, runChild } from '../helpers/children.js';
import { codeOf, temporaryDirectory } from '../helpers/native.js';
import { smallDisk } from '../helpers/small-disk.js';

const directory = await temporaryDirectory();
let count = 0;
const newPath = () => join(directory, `${count++}.lock`);
const script = fileURLToPath(new URL('children/file-lock.mjs', import.meta.url));
const posix = process.platform !== 'win32';

/** Starts a process that tries to acquire the lock. `line()` returns the next line that the process prints. */
function owner(work: string, path: string, env: NodeJS.ProcessEnv = {}) {
  requireFreshDist();
  const child = spawn(process.execPath, [script, work, path], { env: { ...process.env, ...env, NODE_OPTIONS: '' } });
  onTestFinished(() => void child.kill('SIGKILL'));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  return { child, line: async () => (await lines.next()).value };
}

async function lockAt(path: string): Promise<FileLock> {
  const lock = await FileLock.tryAcquire(path);
  expect(lock).not.toBeNull();
  return lock as FileLock;
}

describe('a file lock', () => {
  it('has one owner at a time, until it is released', async () => {
    const path = newPath();
    const lock = await lockAt(path);
    expect([lock.path, lock.held]).toEqual([path, true]);
    expect(await FileLock.tryAcquire(path)).toBeNull();
    lock.release();
    lock.release();
    expect(lock.held).toBe(false);
    const next = await lockAt(path);
    lock.release();
    expect(await FileLock.tryAcquire(path)).toBeNull();
    next[Symbol.dispose]();
    (await lockAt(path)).release();
  });

  it('is acquired by only one of many concurrent calls', async () => {
    const path = newPath();
    const answers = await Promise.all(Array.from({ length: 20 }, () => FileLock.tryAcquire(path)));
    const locks = answers.filter((lock) => lock !== null);
    expect(locks.length).toBe(1);
    locks[0]?.release();
  });

  it('leaves an empty file that only the user who created it can read', async () => {
    const path = newPath();
    (await lockAt(path)).release();
    const { size, mode } = await stat(path);
    expect(size).toBe(0);
    if (posix) expect(mode & 0o777).toBe(0o600);
  });

  it('does not change an existing file', async () => {
    const path = newPath();
    await writeFile(path, 'something');
    (await lockAt(path)).release();
    expect((await stat(path)).size).toBe(9);
  });

  it.runIf(posix)('can be acquired again after its file was removed or replaced', async () => {
    const path = newPath();
    const removed = await lockAt(path);
    await rm(path);
    const second = await lockAt(path);
    await rename(path, `${path}.old`);
    await writeFile(path, '');
    const replaced = await lockAt(path);
    for (const lock of [removed, second]) lock.release();
    expect(await FileLock.tryAcquire(path)).toBeNull();
    replaced.release();
  });
});

describe('between processes', () => {
  it('a lock has one owner at a time, and is released when its owner is killed', async () => {
    const path = newPath();
    const { child, line } = owner('hold', path);
    expect(await line()).toBe('locked');
    expect(await FileLock.tryAcquire(path)).toBeNull();
    child.kill('SIGKILL');
    await once(child, 'exit');
    const lock = await lockAt(path);
    expect(await owner('hold', path).line()).toBe('taken by another');
    lock.release();
    expect(await owner('hold', path).line()).toBe('locked');
  });

  it('a child process of the owner does not keep the lock', async () => {
    const path = newPath();
    const { child, line } = owner('hold and spawn', path);
    expect(await line()).toBe('locked');
    const orphan = Number(await line());
    onTestFinished(() => void process.kill(orphan, 'SIGKILL'));
    child.kill('SIGKILL');
    await once(child, 'exit');
    process.kill(orphan, 0); // alive
    (await lockAt(path)).release();
  });

  it('a lock is released when its worker thread is terminated', async () => {
    const end = await runChild('native/children/file-lock.mjs', ['terminate a worker', newPath()]);
    expect(end).toEqual({ code: 0, signal: null, stdout: 'locked, taken by another, locked\n', stderr: '' });
  });

  it('a lock without references is released when it is garbage-collected', async () => {
    const options = { nodeArgs: ['--expose-gc'] };
    const end = await runChild('native/children/file-lock.mjs', ['drop and collect', newPath()], options);
    expect(end).toEqual({ code: 0, signal: null, stdout: 'locked\nlocked\n', stderr: '' });
  });

  it.each(['end by itself', 'exit'])('a process that holds a lock ends without errors: %s', async (work) => {
    const path = newPath();
    const end = await runChild('native/children/file-lock.mjs', [work, path]);
    expect(end).toEqual({ code: 0, signal: null, stdout: 'locked\n', stderr: '' });
    (await lockAt(path)).release();
  });
});

describe('a lock that cannot be acquired', () => {
  it('causes an error with a code for a directory, a link, a FIFO, a missing directory or a wrong path', async () => {
    const [folder, link, fifo] = [newPath(), newPath(), newPath()];
    await mkdir(folder);
    expect(await codeOf(() => FileLock.tryAcquire(folder))).toBe('WRITE_FAILED');
    expect(await codeOf(() => FileLock.tryAcquire(join(directory, 'no', 'such')))).toBe('WRITE_FAILED');
    for (const path of ['', 'a\0b', 5, undefined, null, {}, ['x']]) {
      expect(await codeOf(() => FileLock.tryAcquire(path as string))).toBe('INVALID_ARGUMENT');
    }
    if (!posix) return;
    await symlink(newPath(), link);
    expect(await codeOf(() => FileLock.tryAcquire(link))).toBe('WRITE_FAILED');
    execFileSync('mkfifo', [fifo]);
    expect(await codeOf(() => FileLock.tryAcquire(fifo))).toBe('WRITE_FAILED');
    expect(await codeOf(() => FileLock.tryAcquire('/dev/null'))).toBe('WRITE_FAILED');
    expect(await readdir(directory)).not.toContain('no');
  });

  it.runIf(process.platform === 'linux')('causes DISK_FULL on a full disk', async (context) => {
    const disk = smallDisk(newPath(), '64k,nr_inodes=2');
    if (disk === undefined) return context.skip();
    const lock = await lockAt(join(disk, 'first'));
    expect(await codeOf(() => FileLock.tryAcquire(join(disk, 'second')))).toBe('DISK_FULL');
    lock.release();
  });

  // Tests cannot mount a network file system. These C functions replace functions of libc and return the results that a
  // network file system would cause.
  const AS_ON_A_NETWORK = {
    'no-locks': 'int flock(int fd, int how) { (void) fd; (void) how; errno = ENOLCK; return -1; }',
    'another-machine':
      'int fstatfs(int fd, struct statfs *f) { (void) fd; memset(f, 0, sizeof *f); f->f_type = 0x6969; return 0; }',
  };
  it.runIf(process.platform === 'linux')(
    'causes LOCK_UNSUPPORTED on file systems without reliable locks',
    async (context) => {
      for (const [name, source] of Object.entries(AS_ON_A_NETWORK)) {
        const library = join(directory, `${name}.so`);
        const includes = ['errno', 'string', 'sys/file', 'sys/vfs']
          .map((header) => `#include <${header}.h>\n`)
          .join('');
        try {
          const args = ['-shared', '-fPIC', '-x', 'c', '-o', library, '-'];
          execFileSync(process.env.CC ?? 'cc', args, { input: includes + source, stdio: ['pipe', 'ignore', 'ignore'] });
        } catch {
          return context.skip();
        }
        const preloaded = [process.env.LD_PRELOAD, library].filter(Boolean).join(':');
        expect(await owner('exit', newPath(), { LD_PRELOAD: preloaded }).line(), name).toBe('LOCK_UNSUPPORTED');
      }
    },
  );
});
