// Writes Markdown to a terminal while it is generated. Text appears at once as the model wrote it. When a block (a
// paragraph, list, table or code) is complete, its rendered form replaces it.
import { clearScreenDown, moveCursor } from 'node:readline';
import type { OutputStream } from './line-reader.js';
import type { MarkdownRenderer } from './markdown.js';
import { rowsOf } from './terminal-rows.js';

const DEFAULT_COLUMNS = 80;
const DEFAULT_ROWS = 24;

/** Writes one reply. The cursor must be in the first column when the reply begins. */
export class MarkdownWriter {
  readonly #output: OutputStream;
  readonly #renderer: MarkdownRenderer;
  /** The text on the screen that is not rendered yet. */
  #pending = '';

  constructor(output: OutputStream, renderer: MarkdownRenderer) {
    this.#output = output;
    this.#renderer = renderer;
  }

  write(text: string): void {
    this.#output.write(text);
    this.#pending += text;
    const { length } = this.#renderer.lastBlock(this.#pending);
    if (length < this.#pending.length) {
      this.#renderUpTo(this.#pending.length - length);
    }
  }

  /** Renders the rest. The cursor is then in the first column. */
  end(): void {
    this.#renderUpTo(this.#pending.length);
  }

  /** Replaces the first part of the pending text by its rendered form. */
  #renderUpTo(end: number): void {
    const complete = this.#pending.slice(0, end);
    const rest = this.#pending.slice(end);
    const rendered = this.#renderer.render(complete, this.#output.columns ?? DEFAULT_COLUMNS);
    if (rendered !== complete.trimEnd() && this.#erase()) {
      this.#output.write(`${rendered}\n${rest === '' ? '' : `\n${rest}`}`);
    } else if (rest === '' && complete !== '' && !complete.endsWith('\n')) {
      this.#output.write('\n');
    }
    this.#pending = rest;
  }

  /**
   * Erases the pending text.
   *
   * @returns false if a part of it has left the screen, where it cannot be erased
   */
  #erase(): boolean {
    const rows = rowsOf(this.#pending, this.#output.columns ?? DEFAULT_COLUMNS);
    if (rows > (this.#output.rows ?? DEFAULT_ROWS)) {
      return false;
    }
    this.#output.write('\r');
    moveCursor(this.#output, 0, 1 - rows);
    clearScreenDown(this.#output);
    return true;
  }
}
