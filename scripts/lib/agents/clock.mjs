// Lets a program run on another day.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../../../bin/lib/run.mjs';

const SOURCE = fileURLToPath(new URL('clock.c', import.meta.url));

/**
 * Compiles the library that moves the clock.
 *
 * @param {string} directory
 * @returns {Promise<string | undefined>} its path; undefined if there is no C compiler
 */
export async function buildClock(directory) {
  const path = join(directory, 'clock.so');
  const { code } = await run('cc', ['-shared', '-fPIC', '-O1', '-o', path, SOURCE, '-ldl']);
  return code === 0 ? path : undefined;
}

/**
 * The environment of a program whose clock is ahead.
 *
 * @param {string | undefined} library
 * @param {number} days
 * @returns {Record<string, string>}
 */
export function clockAhead(library, days) {
  return library === undefined || days === 0
    ? {}
    : { LD_PRELOAD: library, HEADSTART_CLOCK_SECONDS: String(days * 24 * 3600) };
}
