// Runs a command line in this process, in a terminal that the test operates.
import { EventEmitter } from 'node:events';
import { PassThrough, Writable } from 'node:stream';
import { main } from 'llama-headstart/internal';
import { onTestFinished } from 'vitest';

export interface TerminalOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** @default 80 */
  columns?: number;
  /** @default 24 */
  rows?: number;
}

/** The key Ctrl-C, as a terminal in raw mode sends it. */
export const CTRL_C = '\u0003';
/** The key Ctrl-D. */
export const CTRL_D = '\u0004';

/** A terminal in which a command line runs. Standard output and standard error share it. */
export class TestTerminal {
  /** Everything that was written up to now. */
  written = '';
  /** The exit code. */
  readonly code: Promise<number>;
  readonly #stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => undefined });
  readonly #signals = new EventEmitter();
  readonly #changes = new EventEmitter().setMaxListeners(0);
  /** The part of `written` that {@link until} has not passed yet. */
  #position = 0;
  #hasEnded = false;

  constructor(argv: readonly string[], { env = {}, cwd = process.cwd(), columns = 80, rows = 24 }: TerminalOptions) {
    const stream = () => {
      const write = (chunk: unknown, _: unknown, done: () => void) => {
        this.written += String(chunk);
        this.#changes.emit('change');
        done();
      };
      return Object.assign(new Writable({ write }), { isTTY: true, columns, rows });
    };
    const io = {
      stdin: this.#stdin,
      stdout: stream(),
      stderr: stream(),
      env: { PATH: process.env.PATH, ...env },
      cwd,
      signals: this.#signals,
      exit: () => undefined,
    };
    this.code = main(argv, io).finally(() => {
      this.#hasEnded = true;
      this.#changes.emit('change');
    });
  }

  /** Resolves when the text has appeared after the text of the last call. Returns everything in between. */
  async until(text: string): Promise<string> {
    for (;;) {
      const found = this.written.indexOf(text, this.#position);
      if (found !== -1) {
        const passed = this.written.slice(this.#position, found + text.length);
        this.#position = found + text.length;
        return passed;
      }
      if (this.#hasEnded) {
        throw new Error(`Expected "${text}" in the terminal, got: ${this.written.slice(this.#position)}`);
      }
      await new Promise((resolve) => this.#changes.once('change', resolve));
    }
  }

  /** Sends keys. */
  type(keys: string): void {
    this.#stdin.write(keys);
  }

  /** Sends a line. */
  enter(line: string): void {
    this.type(`${line}\r`);
  }

  /** Sends a signal to the command line. */
  kill(signal: NodeJS.Signals): void {
    this.#signals.emit(signal);
  }
}

/** Starts a command line in a terminal. At the end of the test, it is ended. */
export function openTerminal(argv: readonly string[], options: TerminalOptions = {}): TestTerminal {
  const terminal = new TestTerminal(argv, options);
  onTestFinished(async () => {
    terminal.kill('SIGTERM');
    await terminal.code;
  });
  return terminal;
}
