// What a command writes. Results go to standard output, everything else to standard error, so that a result can be
// piped into another program.
import { styleText } from 'node:util';
import stringWidth from 'fast-string-width';
import { wrapAnsi } from 'fast-wrap-ansi';
import type { Logger } from '../logger.js';
import type { CliIo, CliOutput } from './io.js';

type Style = Parameters<typeof styleText>[0];

/** How much a command writes, and in which form. */
export interface OutputSettings {
  /** Results are JSON, one object. */
  json: boolean;
  /** No progress and no notes. */
  quiet: boolean;
  /** More notes, and the stack of an error. */
  verbose: boolean;
}

const DEFAULT_COLUMNS = 80;
const MIN_COLUMNS = 20;
const GAP = '  ';

export class Output {
  readonly settings: OutputSettings;
  readonly #io: CliIo;
  readonly #warnings = new Set<string>();

  constructor(io: CliIo, settings: OutputSettings) {
    this.#io = io;
    this.settings = settings;
  }

  /** Width of the terminal in columns. */
  get columns(): number {
    return columnsOf(this.#io.stdout, this.#io.env);
  }

  /** Whether a person reads standard output on a terminal that can move its cursor. */
  get isTerminal(): boolean {
    return isTerminal(this.#io.stdout, this.#io.env);
  }

  /** Whether a person can answer questions. */
  get isInteractive(): boolean {
    return this.isTerminal && this.#io.stdin.isTTY === true && !this.settings.json;
  }

  /** Writes a line of the result to standard output. */
  print(text = ''): void {
    this.write(`${text}\n`);
  }

  /** Writes a part of the result to standard output, without a line break. */
  write(text: string): void {
    this.#io.stdout.write(text);
  }

  /** Writes a result: as one JSON object with `--json`, else as text. */
  result(value: object, text: () => string | readonly string[]): void {
    if (this.settings.json) {
      this.print(JSON.stringify(value));
      return;
    }
    const lines = text();
    for (const line of typeof lines === 'string' ? [lines] : lines) {
      this.print(line);
    }
  }

  /** Writes a note for people to standard error. `--quiet` suppresses it. */
  note(text: string): void {
    if (!this.settings.quiet) {
      this.printError(text);
    }
  }

  /** Writes a note that only `--verbose` shows. */
  detail(text: string): void {
    if (this.settings.verbose) {
      this.printError(this.styleError('dim', text));
    }
  }

  /** Writes a warning to standard error, even with `--quiet`. The same warning is written only once. */
  warn(text: string): void {
    if (this.#warnings.has(text)) {
      return;
    }
    this.#warnings.add(text);
    this.printError(`${this.styleError('yellow', '!')} ${text}`);
  }

  /** Writes a log line: warnings and errors as warnings, others only with `--verbose`. */
  readonly log: Logger = (level, message) =>
    level === 'warn' || level === 'error' ? this.warn(message) : this.detail(message);

  /** Writes the message of a failure to standard error. */
  fail(text: string): void {
    const columns = columnsOf(this.#io.stderr, this.#io.env);
    const isTerminal = this.#io.stderr.isTTY === true;
    this.printError(`${this.styleError('red', '✗')} ${isTerminal ? wrapAnsi(text, columns - 2) : text}`);
  }

  /** Colors a text for standard output, if colors are on. */
  style(style: Style, text: string): string {
    return styled(this.#io.stdout, this.#io.env, style, text);
  }

  /** Colors a text for standard error, if colors are on. */
  styleError(style: Style, text: string): string {
    return styled(this.#io.stderr, this.#io.env, style, text);
  }

  /**
   * Breaks a text into lines that fit the terminal. If standard output is not a terminal, the text does not
   * change.
   */
  wrap(text: string, indent = ''): string {
    if (!this.isTerminal) {
      return `${indent}${text}`;
    }
    const lines = wrapAnsi(text, Math.max(MIN_COLUMNS, this.columns - indent.length), { trim: true }).split('\n');
    return lines.map((line) => `${indent}${line}`).join('\n');
  }

  /**
   * Formats a table. On a terminal that is too narrow for it, each row becomes a block with one line for each cell.
   *
   * @param alignRight the indices of the columns with numbers
   */
  table(
    headings: readonly string[],
    rows: readonly (readonly string[])[],
    alignRight: readonly number[] = [],
  ): string[] {
    const widths = headings.map((heading, column) =>
      Math.max(stringWidth(heading), ...rows.map((row) => stringWidth(row[column] ?? ''))),
    );
    const total = widths.reduce((sum, width) => sum + width, 0) + GAP.length * (widths.length - 1);
    if (this.isTerminal && total > this.columns) {
      return rows.flatMap((row, index) => [
        ...(index === 0 ? [] : ['']),
        ...headings.map((heading, column) => `${this.style('dim', `${heading}:`)} ${row[column] ?? ''}`),
      ]);
    }
    const line = (cells: readonly string[]) =>
      cells.map((cell, column) => padded(cell, widths[column] as number, alignRight.includes(column))).join(GAP);
    return [this.style('dim', line(headings).trimEnd()), ...rows.map((row) => line(row).trimEnd())];
  }

  /**
   * Resolves when standard output has taken everything, or when its reader has closed it.
   *
   * @throws the error of standard output, for example of a full disk
   */
  async flush(): Promise<void> {
    const error = await new Promise<NodeJS.ErrnoException | null | undefined>((resolve) => {
      this.#io.stdout.write('', resolve);
    });
    if (error && !hasReaderLeft(error)) {
      throw error;
    }
  }

  /** Writes a line to standard error. */
  printError(text: string): void {
    this.#io.stderr.write(`${text}\n`);
  }
}

/** Whether a stream failed because its reader has closed it, as in `llama-headstart cache list | head -1`. */
export function hasReaderLeft({ code }: NodeJS.ErrnoException): boolean {
  return code === 'EPIPE' || code === 'ERR_STREAM_DESTROYED';
}

function padded(text: string, width: number, isRight: boolean): string {
  const space = ' '.repeat(Math.max(0, width - stringWidth(text)));
  return isRight ? space + text : text + space;
}

function columnsOf(stream: CliOutput, { COLUMNS }: NodeJS.ProcessEnv): number {
  return Math.max(MIN_COLUMNS, stream.columns ?? (Number(COLUMNS) || DEFAULT_COLUMNS));
}

export function isTerminal(stream: CliOutput, { TERM }: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && TERM !== 'dumb';
}

/** Colors a text, unless `NO_COLOR` is set or the stream is not a terminal. `FORCE_COLOR` also colors other streams. */
function styled(stream: CliOutput, env: NodeJS.ProcessEnv, style: Style, text: string): string {
  const isForced = env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== '0';
  const isOn = !env.NO_COLOR && (isForced || isTerminal(stream, env));
  return isOn ? styleText(style, text, { validateStream: false }) : text;
}
