// Tests that a power loss cannot damage an entry: a save makes its sync and rename calls in the right order.
import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { agentOptions, temporaryDirectory } from '../helpers/agents.js';
import { inOtherProcess } from '../helpers/processes.js';

it('a cache entry is synced before its rename, and its directory is synced before the save is reported', async ({
  skip,
}) => {
  const library = join(await temporaryDirectory(), 'syscalls.so');
  try {
    const source = fileURLToPath(new URL('../helpers/syscalls.c', import.meta.url));
    execFileSync(process.env.CC ?? 'cc', ['-shared', '-fPIC', '-o', library, source, '-ldl'], { stdio: 'pipe' });
  } catch {
    skip('no C compiler can build a library for LD_PRELOAD');
  }
  const [cacheDir, log] = [await temporaryDirectory(), join(await temporaryDirectory(), 'log')];
  const env = { LD_PRELOAD: library, SYSCALLS_LOG: log };
  const { after } = await inOtherProcess('agent', { options: agentOptions({ cacheDir }) }, { env });
  expect(after.saves).toBe(1);
  const calls = (await readFile(log, 'utf8'))
    .split('\n')
    .filter((line) => line.includes('template_') || line.endsWith(cacheDir))
    .map((line) => line.replace(cacheDir, basename(cacheDir)));
  const name = `${basename(cacheDir)}/template_[0-9a-f]{16}.kv`;
  expect(calls).toEqual([
    expect.stringMatching(new RegExp(`^fsync ${name}\\.[0-9a-f]{16}\\.\\d+\\.tmp$`)),
    expect.stringMatching(new RegExp(`^rename ${name}$`)),
    `fsync ${basename(cacheDir)}`,
  ]);
});
