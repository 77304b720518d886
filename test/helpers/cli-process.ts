// Runs the command line in a separate process: with pipes, or in a pseudo-terminal.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { program } from './cli.js';

const PSEUDO_TERMINAL = fileURLToPath(new URL('pseudo-terminal.py', import.meta.url));

/** Whether this machine can run programs in pseudo-terminals. */
export const hasPseudoTerminals = spawnSync('python3', ['-c', 'import pty, termios']).status === 0;

export interface ProcessOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** The program. @default that of this checkout */
  bin?: string;
}

/** A running command line. A pseudo-terminal has no separate standard error. */
export class CliProcess {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #ended: Promise<number | null>;

  private constructor(command: string, args: readonly string[], { env = {}, cwd }: ProcessOptions) {
    this.child = spawn(command, args, { cwd, env: { ...process.env, NODE_OPTIONS: '', ...env } });
    for (const name of ['stdout', 'stderr'] as const) {
      this.child[name]?.setEncoding('utf8').on('data', (text) => {
        this[name] += text;
      });
    }
    this.child.stdin?.on('error', () => undefined); // the process may have ended
    this.#ended = once(this.child, 'close').then(([code]) => code as number | null);
  }

  /** Starts a command line whose input and output are pipes. */
  static piped(argv: readonly string[], options: ProcessOptions = {}): CliProcess {
    return new CliProcess(process.execPath, [options.bin ?? program, ...argv], options);
  }

  /** Starts a command line in a pseudo-terminal. */
  static inTerminal(argv: readonly string[], options: ProcessOptions & { columns?: number } = {}): CliProcess {
    const command = [process.execPath, options.bin ?? program, ...argv];
    return new CliProcess('python3', [PSEUDO_TERMINAL, String(options.columns ?? 80), ...command], options);
  }

  /** Resolves when the output contains a text. */
  async until(text: string): Promise<void> {
    while (!`${this.stdout}${this.stderr}`.includes(text)) {
      const more = Promise.race([once(this.child.stdout as never, 'data'), once(this.child.stderr as never, 'data')]);
      await Promise.race([more, this.#ended.then(() => Promise.reject(new Error(this.stdout + this.stderr)))]);
    }
  }

  /** Sends keys to the terminal, or text to the pipe. */
  type(keys: string): void {
    this.child.stdin?.write(keys);
  }

  /** Resolves when the process has ended. */
  async result(): Promise<{ code: number | null; stdout: string; stderr: string }> {
    this.child.stdin?.end();
    const code = await this.#ended;
    return { code, stdout: this.stdout, stderr: this.stderr };
  }
}
