// A process can end at any moment and in any way while work is in progress. It must not crash or hang, print anything,
// or leave an incomplete file.
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';
import { rounds, variants } from '../helpers/soak.js';

const directory = await temporaryDirectory();
const path = microModel('dense');
const child = (work: string, end: string) => runChild('native/children/lifetime.mjs', [work, end, path, directory]);

/** Reads the state files of the children, which must be complete, and removes them. Returns their number. */
async function wholeFiles(): Promise<number> {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.kv'));
  for (const name of names) {
    const file = join(directory, name);
    (await SequenceState.readFile(file)).close();
    await rm(file);
  }
  return names.length;
}

const WORKS = [
  'nothing',
  'load',
  'a load that has progressed',
  'loaded',
  'decode',
  'capture',
  'restore',
  'file write',
  'file read',
  'hash',
  'tokenize',
  'close',
];
/** The number of rounds for work whose faults appear only at rare moments. */
const ROUNDS: Record<string, number> = { close: rounds(3, 8) };

describe.each(WORKS)('with work in progress: %s', (work) => {
  it('process.exit() ends the process without a crash or output', async () => {
    for (let round = 0; round < (ROUNDS[work] ?? rounds(1, 2)); round++) {
      const [now, later] = await Promise.all([child(work, 'exit'), child(work, 'exit a turn later')]);
      expect(now).toEqual(CLEAN);
      expect(later).toEqual(CLEAN);
      await wholeFiles();
    }
  });

  // In `npm test`, an uncaught error ends every second kind of work.
  it.runIf(variants(WORKS, (_, index) => index % 2 === 0).includes(work))(
    'an uncaught error ends the process without a crash, and its message is printed',
    async () => {
      const { stderr, ...end } = await child(work, 'uncaught error');
      expect(end).toEqual({ code: 1, signal: null, stdout: '' });
      expect(stderr).toContain('meant to happen');
      expect(stderr).not.toMatch(/assert|abort|terminate called|llama/i);
      await wholeFiles();
    },
  );

  it('a process without other work ends by itself, even if nothing was closed', async () => {
    expect(await child(work, 'by itself')).toEqual(CLEAN);
    const written = await wholeFiles();
    if (work === 'file write') expect(written).toBe(20);
  });
});
