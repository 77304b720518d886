// Reads the lines of the user from a terminal or from a pipe.
import { createInterface, type Interface } from 'node:readline';
import { Writable } from 'node:stream';

/** A terminal, or a stream in its place. */
export type OutputStream = NodeJS.WritableStream & { columns?: number; rows?: number };

export interface LineReaderOptions {
  input: NodeJS.ReadableStream;
  output: OutputStream;
  /** Whether a person types: show prompts, edit lines, and keep a history. */
  terminal: boolean;
  /** Earlier lines, the newest first. */
  history?: readonly string[];
  /** Completes a line: returns the possible texts, and the part of the line that they replace. */
  complete?: (line: string) => [string[], string];
}

/**
 * Reads lines one after another. In a terminal, the keyboard is always watched, so that Ctrl-C reaches `onInterrupt`
 * even while no line is read. The typed characters are shown only while a line is read.
 */
export class LineReader {
  /** Called for Ctrl-C, if the terminal sends it as a key. */
  onInterrupt: () => void = () => undefined;
  readonly #readline: Interface;
  /** Lines that have arrived, but have not been read yet. */
  readonly #lines: string[] = [];
  #history: readonly string[];
  #waiting: ((line: string | undefined) => void) | undefined;
  #isMuted = true;
  #hasEnded = false;

  constructor({ input, output, terminal, history = [], complete }: LineReaderOptions) {
    this.#history = history;
    this.#readline = createInterface({
      input,
      output: this.#quietly(output),
      terminal,
      history: [...history],
      historySize: 1000,
      removeHistoryDuplicates: true,
      ...(complete && { completer: complete }),
    });
    this.#readline.on('line', (line) => this.#deliver(line));
    this.#readline.on('history', (lines) => {
      this.#history = lines;
    });
    this.#readline.on('SIGINT', () => this.onInterrupt());
    this.#readline.on('close', () => {
      this.#hasEnded = true;
      this.#settle(undefined);
    });
  }

  /** All lines of the history, the newest first. */
  get history(): readonly string[] {
    return this.#history;
  }

  /** The text that the user has typed, but not sent. */
  get typed(): string {
    return this.#readline.line;
  }

  /**
   * Reads the next line.
   *
   * @returns undefined at the end of the input
   */
  read(prompt: string): Promise<string | undefined> {
    const line = this.#lines.shift();
    return line === undefined ? this.ask(prompt) : Promise.resolve(line);
  }

  /** Like {@link read}, but never returns a line that the user sent before the question. */
  ask(question: string): Promise<string | undefined> {
    if (this.#hasEnded) {
      return Promise.resolve(undefined);
    }
    return new Promise((resolve) => {
      this.#waiting = resolve;
      this.#isMuted = false;
      this.#readline.setPrompt(question);
      this.show();
    });
  }

  /** Ends a waiting read. It then returns undefined, as at the end of the input. */
  cancel(): void {
    this.#settle(undefined);
  }

  /** Deletes the text that the user has typed, and begins a new line. */
  clear(): void {
    this.#readline.write(null, { ctrl: true, name: 'e' });
    this.#readline.write(null, { ctrl: true, name: 'u' });
  }

  /** Shows the prompt again, after other output. */
  show(): void {
    if (this.#waiting !== undefined && this.#readline.terminal) {
      this.#readline.prompt(true);
    }
  }

  /** Stops reading. Restores the terminal. */
  close(): void {
    this.#readline.close();
  }

  #deliver(line: string): void {
    if (this.#waiting === undefined) {
      this.#lines.push(line);
    } else {
      this.#settle(line);
    }
  }

  #settle(line: string | undefined): void {
    const resolve = this.#waiting;
    this.#waiting = undefined;
    this.#isMuted = true;
    resolve?.(line);
  }

  /** Passes the output of readline on only while a line is read. */
  #quietly(output: OutputStream): NodeJS.WritableStream {
    const stream = new Writable({
      write: (chunk, encoding, callback) => {
        if (!this.#isMuted) {
          output.write(chunk, encoding);
        }
        callback();
      },
    });
    Object.defineProperty(stream, 'columns', { get: () => output.columns });
    Object.defineProperty(stream, 'rows', { get: () => output.rows });
    output.on('resize', () => stream.emit('resize'));
    return stream;
  }
}
