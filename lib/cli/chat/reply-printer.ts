// Shows the parts of a reply: text, reasoning, tool calls and their results.
import type { StreamPart } from '../../generate/stream-parts.js';
import type { OutputStream } from './line-reader.js';
import type { MarkdownRenderer } from './markdown.js';
import { MarkdownWriter } from './markdown-writer.js';

/** How replies are shown. */
export interface ReplyStyle {
  /** Receives the text of the reply. */
  output: OutputStream;
  /** Whether `output` is a terminal, so that control characters could change its state. */
  isTerminal: boolean;
  /** Receives reasoning, tool calls and results. Undefined: they are not shown. */
  notes: OutputStream | undefined;
  /** Renders the text. Undefined: the text is written as the model wrote it. */
  markdown: MarkdownRenderer | undefined;
  /** Dims a text. */
  dim(text: string): string;
}

const LONGEST_NOTE = 300;
/** Control characters besides the tab and the line break. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these characters are removed
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Removes the control characters of a text, some of which change the state of a terminal. */
export function withoutControls(text: string): string {
  return text.replace(CONTROLS, '');
}

/** Prints one turn. */
export class ReplyPrinter {
  readonly #style: ReplyStyle;
  #section: 'text' | 'reasoning' | undefined;
  #writer: Pick<MarkdownWriter, 'write' | 'end'> | undefined;
  #text = '';
  #hasCalls = false;

  constructor(style: ReplyStyle) {
    this.#style = style;
  }

  /** The text of the reply so far, as the model wrote it. Undefined if the turn has tool calls. */
  get text(): string | undefined {
    return this.#hasCalls ? undefined : this.#text;
  }

  print(part: StreamPart): void {
    switch (part.type) {
      case 'text-delta':
        this.#printText(part.text);
        break;
      case 'reasoning-delta':
        this.#printReasoning(part.text);
        break;
      case 'tool-call':
        this.#hasCalls = true;
        this.note(`→ ${part.toolName} ${oneLine(part.input)}`);
        break;
      case 'tool-result':
        this.note(`${part.isError ? '✗' : '←'} ${oneLine(part.output)}`);
        break;
      case 'compaction':
        this.note(`A summary replaced ${part.replacedMessages} messages.`);
        break;
    }
  }

  /** Prints a line that is not part of the reply. */
  note(text: string): void {
    this.end();
    this.#style.notes?.write(`${this.#style.dim(text)}\n`);
  }

  /** Ends the text. The cursor is then in the first column. */
  end(): void {
    if (this.#section === 'text') {
      this.#writer?.end();
    } else if (this.#section === 'reasoning') {
      this.#style.notes?.write('\n\n');
    }
    this.#section = undefined;
  }

  #printText(text: string): void {
    this.#text += text;
    const shown = this.#style.isTerminal ? withoutControls(text) : text;
    if (this.#section !== 'text') {
      const begin = shown.trimStart();
      if (begin === '') {
        return; // white space between reasoning and text
      }
      this.end();
      this.#section = 'text';
      const { output, markdown } = this.#style;
      this.#writer = markdown === undefined ? new PlainWriter(output) : new MarkdownWriter(output, markdown);
      this.#writer.write(begin);
    } else {
      this.#writer?.write(shown);
    }
  }

  #printReasoning(text: string): void {
    const { notes, dim } = this.#style;
    if (this.#section !== 'reasoning') {
      text = text.trimStart();
      if (text === '') {
        return;
      }
      this.end();
      this.#section = 'reasoning';
    }
    notes?.write(dim(withoutControls(text)));
  }
}

/** Writes a text unchanged, and a line break at its end. */
class PlainWriter {
  readonly #output: OutputStream;
  #endsLine = true;

  constructor(output: OutputStream) {
    this.#output = output;
  }

  write(text: string): void {
    this.#output.write(text);
    this.#endsLine = text.endsWith('\n');
  }

  end(): void {
    if (!this.#endsLine) {
      this.#output.write('\n');
    }
  }
}

/** A value in one line, cut if it is long. */
export function oneLine(value: unknown): string {
  const text = withoutControls(
    (typeof value === 'string' ? value : (JSON.stringify(value) ?? '')).replace(/\s+/g, ' '),
  );
  return text.length > LONGEST_NOTE ? `${text.slice(0, LONGEST_NOTE)}…` : text;
}
