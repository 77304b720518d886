// Builds llama-server from the vendored sources, and runs it for the benchmarks.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { step } from '../../bin/lib/progress.mjs';
import { root, run } from '../../bin/lib/run.mjs';

const DIRECTORY = join(root, '.build', 'llama-server');
/** Builds llama-server unless it is up to date. Returns the path of the program. */
export async function buildLlamaServer() {
  return await step('llama-server', {}, async (progress) => {
    const onLine = (line) => {
      const [, done, all] = /^\[(\d+)\/(\d+)\]/.exec(line) ?? /^\[ *(\d+)%\]/.exec(line) ?? [];
      if (done !== undefined) progress.update({ fraction: Number(done) / Number(all ?? 100), detail: 'compiling' });
    };
    const source = join(root, 'bench', 'native', 'llama-server');
    await cmake(['-S', source, '-B', DIRECTORY, '-DCMAKE_BUILD_TYPE=Release'], onLine);
    const jobs = `${availableParallelism()}`;
    await cmake(['--build', DIRECTORY, '--target', 'llama-server', '--parallel', jobs], onLine);
    return join(DIRECTORY, 'bin', 'llama-server');
  });
}

async function cmake(args, onLine) {
  const { code, output } = await run('cmake', args, { onLine, interruptible: true });
  if (code !== 0) throw new Error(`llama-server could not be built:\n${output.slice(-2000)}`);
}

/**
 * Starts llama-server on a free port and waits until it has loaded the model.
 *
 * @param {string} program
 * @param {string[]} args the arguments besides host and port
 */
export async function startLlamaServer(program, args) {
  const port = await freePort();
  const child = spawn(program, ['--host', '127.0.0.1', '--port', `${port}`, '--no-webui', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (chunk) => {
    log = (log + chunk).slice(-2000);
  });
  const url = `http://127.0.0.1:${port}`;
  while (!(await isReady(url))) {
    const ending = child.exitCode ?? child.signalCode;
    if (ending !== null) throw new Error(`llama-server ended with ${ending}:\n${log}`);
    await wait(50);
  }
  return {
    url,
    stop: async () => {
      if (child.exitCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}

async function isReady(url) {
  try {
    return (await fetch(`${url}/health`)).ok;
  } catch {
    return false; // the server does not listen yet
  }
}

async function freePort() {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}
