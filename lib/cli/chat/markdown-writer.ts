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
  /** Whether the cursor is in the first column. */
  #endsLine = true;

  constructor(output: OutputStream, renderer: MarkdownRenderer) {
    this.#output = output;
    this.#renderer = renderer;
  }

  write(text: string): void {
    // Only a new line can begin another block.
    const mayEndBlock = text.includes('\n') || this.#pending.endsWith('\n');
    const pending = this.#pending + text;
    const end = mayEndBlock ? pending.length - this.#renderer.lastBlock(pending).length : 0;
    this.#show(text, end);
  }

  /** Renders the rest. The cursor is then in the first column. */
  end(): void {
    this.#show('', this.#pending.length);
    if (!this.#endsLine) {
      this.#write('\n');
    }
  }

  /**
   * Adds a text to the screen, and replaces complete blocks by their rendered form.
   *
   * @param end the end of the complete blocks in the pending text and `text`
   */
  #show(text: string, end: number): void {
    const pending = this.#pending + text;
    const complete = pending.slice(0, end);
    const rest = pending.slice(end);
    const rendered = this.#renderer.render(complete, this.#output.columns ?? DEFAULT_COLUMNS);
    if (rendered !== complete.trimEnd() && this.#erase()) {
      this.#write(`${rendered}\n${rest === '' ? '' : `\n${rest}`}`);
    } else {
      this.#write(text);
    }
    this.#pending = rest;
  }

  #write(text: string): void {
    if (text !== '') {
      this.#output.write(text);
      this.#endsLine = text.endsWith('\n');
    }
  }

  /**
   * Erases the pending text.
   *
   * @returns false if a part of it has scrolled off the screen, so that it cannot be erased
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
