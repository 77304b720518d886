// Ends a command early: on SIGINT, SIGTERM or SIGHUP, or when the reader of the output closes it.
import type { CliIo } from './io.js';
import { hasReaderLeft } from './output.js';

const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
type EndingSignal = keyof typeof EXIT_CODES;
const SIGNALS = Object.keys(EXIT_CODES) as EndingSignal[];

const IGNORED = () => undefined;

export class Interrupts {
  readonly #io: CliIo;
  readonly #controller = new AbortController();
  readonly #listeners = new Map<EndingSignal, () => void>();
  readonly #handlers: (() => void)[] = [];
  #exitCode: number | undefined;

  constructor(io: CliIo) {
    this.#io = io;
    for (const name of SIGNALS) {
      const listener = () => this.#receive(name);
      this.#listeners.set(name, listener);
      io.signals.on(name, listener);
    }
    io.stdout.on('error', this.#onOutputError);
    io.stderr.on('error', IGNORED); // a command can continue without its notes
  }

  /** Aborts when the command must end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit code of an interrupted command; undefined if nothing has interrupted it. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  /**
   * Lets a command handle Ctrl-C (SIGINT) itself, for example to stop a reply. The newest handler is called.
   *
   * @returns a function that removes the handler
   */
  handle(handler: () => void): () => void {
    this.#handlers.push(handler);
    return () => {
      const index = this.#handlers.lastIndexOf(handler);
      if (index !== -1) {
        this.#handlers.splice(index, 1);
      }
    };
  }

  /** Acts like Ctrl-C. Call it if a terminal in raw mode has delivered the key instead of the signal. */
  interrupt(): void {
    this.#receive('SIGINT');
  }

  /** Stops listening for signals. */
  close(): void {
    for (const [name, listener] of this.#listeners) {
      this.#io.signals.off(name, listener);
    }
    // The listeners of the streams stay, because the last lines may still be written.
  }

  /** Aborts the command at the first signal. Ends the process at the second one. */
  #receive(name: EndingSignal): void {
    const handler = name === 'SIGINT' ? this.#handlers.at(-1) : undefined;
    if (handler !== undefined) {
      handler();
    } else if (this.#exitCode !== undefined) {
      this.#io.exit(this.#exitCode);
    } else {
      this.#end(EXIT_CODES[name], name);
    }
  }

  /** A closed pipe is not a failure: `llama-headstart cache list | head` has printed what its reader wanted. */
  readonly #onOutputError = (error: NodeJS.ErrnoException) => {
    this.#end(hasReaderLeft(error) ? 0 : 1, 'standard output failed');
  };

  #end(exitCode: number, reason: string): void {
    this.#exitCode ??= exitCode;
    this.#controller.abort(new Error(reason));
  }
}
