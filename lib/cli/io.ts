// The streams, the environment and the signals that a command line uses. Tests pass their own.
import type { Readable, Writable } from 'node:stream';

/** A stream that may be a terminal. */
export type CliOutput = Writable & { isTTY?: boolean; columns?: number };
export type CliInput = Readable & { isTTY?: boolean };

/** Delivers signals, as `process` does. */
export interface SignalSource {
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  off(signal: NodeJS.Signals, listener: () => void): unknown;
}

export interface CliIo {
  stdin: CliInput;
  stdout: CliOutput;
  stderr: CliOutput;
  env: NodeJS.ProcessEnv;
  /** The working directory. */
  cwd: string;
  signals: SignalSource;
  /** Ends the process at once. */
  exit(code: number): void;
}

/** The streams, the environment and the signals of this process. */
export function processIo(): CliIo {
  const { stdin, stdout, stderr, env } = process;
  return { stdin, stdout, stderr, env, cwd: workingDirectory(), signals: process, exit: (code) => process.exit(code) };
}

/** The working directory, or the root directory if the working directory was deleted. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}
