// Runs the command line: in this process with streams of the test, in a separate process, or in a pseudo-terminal.
import { EventEmitter } from 'node:events';
import { PassThrough, Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { main } from 'llama-headstart/internal';

/** The program of this checkout. */
export const program = fileURLToPath(new URL('../../bin/llama-headstart.mjs', import.meta.url));

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface CliSurroundings {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** The text on standard input. */
  input?: string;
  /** The width of a terminal on standard output and standard error. @default no terminal */
  columns?: number;
}

/** A command line that runs in this process. */
export interface RunningCli {
  result: Promise<CliResult>;
  /** Standard input. */
  stdin: Readable;
  /** What the command line has written to standard output up to now. */
  stdout(): string;
  /** What the command line has written to standard error up to now. */
  stderr(): string;
  /** Sends a signal to the command line. */
  kill(signal: NodeJS.Signals): void;
}

/** Starts a command line in this process. */
export function startCli(argv: readonly string[], surroundings: CliSurroundings = {}): RunningCli {
  const { env = {}, cwd = process.cwd(), input, columns } = surroundings;
  const written = { stdout: '', stderr: '' };
  const stream = (name: keyof typeof written) =>
    Object.assign(
      new Writable({
        write(chunk, _, done) {
          written[name] += String(chunk);
          done();
        },
      }),
      columns === undefined ? {} : { isTTY: true, columns },
    );
  const stdin =
    input === undefined ? Object.assign(new PassThrough(), { isTTY: columns !== undefined }) : Readable.from([input]);
  const signals = new EventEmitter();
  let exited: number | undefined;
  const io = {
    stdin,
    stdout: stream('stdout'),
    stderr: stream('stderr'),
    env: { PATH: process.env.PATH, ...env },
    cwd,
    signals,
    exit: (code: number) => {
      exited = code;
    },
  };
  const result = main(argv, io).then((code) => ({ code: exited ?? code, ...written }));
  return {
    result,
    stdin,
    stdout: () => written.stdout,
    stderr: () => written.stderr,
    kill: (signal) => void signals.emit(signal),
  };
}

/** Runs a command line in this process. */
export function runCli(argv: readonly string[], surroundings?: CliSurroundings): Promise<CliResult> {
  return startCli(argv, surroundings).result;
}
