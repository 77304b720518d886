import { Writable } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { MarkdownWriter, terminalMarkdown } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';

const plain = (markdown: string, columns = 40) => stripVTControlCharacters(terminalMarkdown.render(markdown, columns));

describe('Markdown on a terminal', () => {
  it('shows headings, emphasis, code and links without their markup', () => {
    expect(plain('# A *big* plan\n\nUse `npm` and **read** [the guide](https://example.org).')).toBe(
      'A big plan\n\nUse npm and read the guide\n(https://example.org).',
    );
    expect(terminalMarkdown.render('**bold**', 40)).toBe('\u001b[1mbold\u001b[22m');
  });

  it('keeps code unchanged, and indents it', () => {
    expect(plain('```js\nif (a) {\n  b(`*x*`);\n}\n```')).toBe('  if (a) {\n    b(`*x*`);\n  }');
  });

  it('shows nested lists, numbers and boxes', () => {
    expect(plain('- one\n  - two\n- [x] done\n\n')).toBe('• one\n  • two\n• ☑ done');
    expect(plain('3. three\n4. four')).toBe('3. three\n4. four');
  });

  it('breaks long lines between words, and indents the lines of a list item', () => {
    expect(plain('- Wörter 日本語 and more words of a list', 20)).toBe(
      '• Wörter 日本語 and\n  more words of a\n  list',
    );
  });

  it('aligns tables, and shows each row as a list if the terminal is too narrow', () => {
    const table = '| name | 数 |\n| --- | --- |\n| a | 1 |\n| long name | 2 |';
    expect(plain(table)).toBe('name      │ 数\n──────────┼───\na         │ 1\nlong name │ 2');
    expect(plain(table, 10)).toBe('name: a\n数: 1\n\nname: long\nname\n数: 2');
  });
});

/** A terminal that understands the control sequences of the writer, and shows its screen as text. */
class Screen extends Writable {
  columns = 20;
  rows = 6;
  readonly #lines: string[] = [''];
  #row = 0;
  #column = 0;

  get text(): string {
    return this.#lines.map((line) => line.trimEnd()).join('\n');
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences are the point
    for (const [piece] of chunk.toString().matchAll(/\u001b\[[\d;]*[A-Za-z]|./gsu)) {
      this.#write(piece);
    }
    done();
  }

  #write(piece: string): void {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences are the point
    const [, count, letter] = /^\u001b\[(\d*)[\d;]*([A-Za-z])$/.exec(piece) ?? [];
    if (letter === 'A') {
      this.#row -= Number(count || 1);
    } else if (letter === 'J') {
      this.#lines.length = this.#row + 1;
      this.#lines[this.#row] = (this.#lines[this.#row] ?? '').slice(0, this.#column);
    } else if (letter !== undefined) {
      // a style
    } else if (piece === '\r') {
      this.#column = 0;
    } else if (piece === '\n') {
      this.#newLine();
    } else {
      if (this.#column === this.columns) {
        this.#newLine();
      }
      const line = (this.#lines[this.#row] ?? '').padEnd(this.#column);
      this.#lines[this.#row] = line.slice(0, this.#column) + piece;
      this.#column++;
    }
  }

  #newLine(): void {
    this.#row++;
    this.#column = 0;
    this.#lines[this.#row] ??= '';
  }
}

describe('Markdown that is still being written', () => {
  const write = (text: string, pieceLength: number) => {
    const screen = new Screen();
    const writer = new MarkdownWriter(screen, terminalMarkdown);
    const pieces = text.match(new RegExp(`.{1,${pieceLength}}`, 'gsu')) ?? [];
    for (const piece of pieces) {
      writer.write(piece);
    }
    const before = screen.text;
    writer.end();
    return { before, after: screen.text };
  };

  it('appears at once as it was written, and is rendered when it is complete', () => {
    const { before, after } = write('**One** word.\n\nAnd **two', 3);
    expect(before).toBe('One word.\n\nAnd **two');
    expect(after).toBe('One word.\n\nAnd **two\n');
  });

  it.each([1, 2, 5, 100])('looks the same in pieces of %i characters', (length) => {
    const text = '# Title\nSome **text** that is longer than a row.\n\n- a\n- `b`\n\n```\ncode\n```\nEnd *of* it.';
    expect(write(text, length).after).toBe(
      'Title\n\nSome text that is\nlonger than a row.\n\n• a\n• b\n\n  code\n\nEnd of it.\n',
    );
  });

  it('stays as it was written if it has left the screen before it is complete', () => {
    const text = Array.from({ length: 9 }, (_, index) => `- **${index}**`).join('\n');
    expect(write(text, 4).after).toBe(`${text}\n`);
  });
});
