// Runs a program in the terminal of this process.
import type { ChildProcess } from 'node:child_process';
import { constants } from 'node:os';
import { onAbort } from '../../abort.js';

export interface RunOptions {
  args: readonly string[];
  environment: NodeJS.ProcessEnv;
  directory: string;
  /** Ends the program. */
  signal: AbortSignal;
}

/** Time between SIGTERM and SIGKILL in ms. */
const GRACE_MS = 5000;

/**
 * Runs a program that uses the terminal of this process, and waits for its end.
 *
 * @returns the exit code. If a signal ended the program: 128 and the number of the signal, as a shell does.
 */
export async function runProgram(path: string, options: RunOptions): Promise<number> {
  const { default: spawn } = await import('cross-spawn'); // starts `.cmd` files of Windows, too
  const { args, environment, directory, signal } = options;
  const child: ChildProcess = spawn(path, [...args], { stdio: 'inherit', env: environment, cwd: directory });
  let timer: NodeJS.Timeout | undefined;
  const end = () => {
    child.kill('SIGTERM');
    timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
  };
  const stop = onAbort(signal, end);
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, name) => resolve(code ?? 128 + constants.signals[name as NodeJS.Signals]));
    });
  } finally {
    clearTimeout(timer);
    stop();
  }
}
