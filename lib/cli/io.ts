// The surroundings of a command line: streams, environment and signals. Tests pass their own.
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

/** The surroundings of this process. */
export function processIo(): CliIo {
  const { stdin, stdout, stderr, env } = process;
  return { stdin, stdout, stderr, env, cwd: workingDirectory(), signals: process, exit: (code) => process.exit(code) };
}

/** The working directory. If it was deleted, the root: relative paths then name no file. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}
