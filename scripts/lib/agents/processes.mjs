// Runs an agent, and ends every process that it leaves behind.

import { spawn } from 'node:child_process';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const MAX_OUTPUT_LENGTH = 20_000;
/** How long processes have after SIGTERM. */
const GRACE_MS = 2000;

/**
 * Runs a program until it ends.
 *
 * @param {readonly string[]} command
 * @param {{ cwd: string, env: Record<string, string>, timeoutMs: number }} options `env` is the whole environment
 * @returns {Promise<{ code: number | null, timedOut: boolean, output: string }>} output: the end of stdout and stderr
 */
export function runProgram([program, ...args], { cwd, env, timeoutMs }) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output = (output + text).slice(-MAX_OUTPUT_LENGTH);
      });
    }
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    // Not `close`: a daemon may hold the streams open.
    child.once('exit', (code) => {
      clearTimeout(timer);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve({ code, timedOut, output });
    });
  });
}

/**
 * Ends all processes that belong to a directory: those with the directory in their environment, their command line or
 * as their working directory. Daemons of an agent belong to the agent's home directory.
 *
 * @param {string} directory an absolute path that no other process uses
 * @returns {Promise<number>} how many processes were ended
 */
export async function endProcessesOf(directory) {
  const found = await processesOf(directory);
  signalAll(found, 'SIGTERM');
  const deadline = Date.now() + GRACE_MS;
  while (Date.now() < deadline && (await processesOf(directory)).length > 0) await sleep(50);
  signalAll(await processesOf(directory), 'SIGKILL');
  return found.length;
}

/** @param {string} directory @returns {Promise<number[]>} process ids */
async function processesOf(directory) {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const belongs = await Promise.all(
    ids.map(async (id) => {
      const texts = await Promise.all([
        readFile(`/proc/${id}/environ`, 'utf8').catch(() => ''),
        readFile(`/proc/${id}/cmdline`, 'utf8').catch(() => ''),
        readlink(`/proc/${id}/cwd`).catch(() => ''),
      ]);
      return texts.some((text) => text.includes(directory));
    }),
  );
  return ids.filter((_, index) => belongs[index]).map(Number);
}

/** @param {readonly number[]} ids @param {NodeJS.Signals} signal */
function signalAll(ids, signal) {
  for (const id of ids) {
    try {
      process.kill(id, signal);
    } catch {
      // The process has ended.
    }
  }
}
