// Renders Markdown for a terminal.

import { styleText } from 'node:util';
import stringWidth from 'fast-string-width';
import { wrapAnsi } from 'fast-wrap-ansi';
import { lexer, type Token, type Tokens } from 'marked';

/** Renders the blocks of a reply: paragraphs, lists, tables and code. */
export interface MarkdownRenderer {
  /** The last block of a text, with everything after it. More text may belong to it. */
  lastBlock(markdown: string): string;
  /** Complete blocks with control sequences for a terminal, without line breaks at the ends. */
  render(markdown: string, columns: number): string;
}

/** Tokens that show nothing. */
const INVISIBLE: readonly string[] = ['space', 'def', 'checkbox'];

const WIDEST_RULE = 40;
const COLUMN_GAP = ' │ ';

export const terminalMarkdown: MarkdownRenderer = {
  lastBlock(markdown) {
    const tokens = lexer(markdown);
    const last = tokens.findLastIndex(({ type }) => type !== 'space');
    return last === -1
      ? markdown
      : tokens
          .slice(last)
          .map(({ raw }) => raw)
          .join('');
  },
  render: (markdown, columns) => blocks(lexer(markdown), columns),
};

function blocks(tokens: readonly Token[], columns: number, separator = '\n\n'): string {
  return tokens
    .filter(({ type }) => !INVISIBLE.includes(type))
    .map((token) => block(token, columns))
    .join(separator);
}

function block(token: Token, columns: number): string {
  switch (token.type) {
    case 'heading':
      return wrapped(styled(token.depth === 1 ? ['bold', 'underline'] : 'bold', inline(token)), columns);
    case 'code':
      return styled('cyan', indented(token.text, '  '));
    case 'blockquote':
      return indented(blocks(token.tokens ?? [], columns - 2), styled('dim', '│ '));
    case 'list':
      return list(token as Tokens.List, columns);
    case 'table':
      return table(token as Tokens.Table, columns);
    case 'hr':
      return styled('dim', '─'.repeat(Math.min(columns, WIDEST_RULE)));
    case 'html':
      return wrapped(token.text.trimEnd(), columns);
    default:
      return wrapped(inline(token), columns);
  }
}

function list({ items, ordered, start, loose }: Tokens.List, columns: number): string {
  return items
    .map((item, index) => {
      const marker = ordered ? `${Number(start || 1) + index}. ` : '• ';
      const box = item.task ? (item.checked ? '☑ ' : '☐ ') : '';
      const text = blocks(item.tokens, columns - marker.length, loose ? '\n\n' : '\n');
      return marker + indented(box + text, ' '.repeat(marker.length)).slice(marker.length);
    })
    .join(loose ? '\n\n' : '\n');
}

/** A table with aligned columns. If it is wider than the terminal: each row as a list of its cells. */
function table({ header, rows }: Tokens.Table, columns: number): string {
  const names = header.map((cell) => inline(cell));
  const texts = rows.map((row) => row.map((cell) => inline(cell)));
  const widths = names.map((name, at) =>
    Math.max(...[name, ...texts.map((row) => row[at] ?? '')].map((text) => stringWidth(text))),
  );
  const width = widths.reduce((sum, each) => sum + each, 0) + COLUMN_GAP.length * (widths.length - 1);
  if (width > columns) {
    const rowText = (row: string[]) =>
      row.map((cell, at) => wrapped(`${styled('bold', names[at] ?? '')}: ${cell}`, columns));
    return texts.map((row) => rowText(row).join('\n')).join('\n\n');
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, at) => cell + ' '.repeat((widths[at] ?? 0) - stringWidth(cell)))
      .join(styled('dim', COLUMN_GAP))
      .trimEnd();
  const rule = styled('dim', widths.map((each) => '─'.repeat(each)).join('─┼─'));
  return [line(names.map((name) => styled('bold', name))), rule, ...texts.map(line)].join('\n');
}

function inline(token: { tokens?: Token[] | undefined; text?: string; raw?: string }): string {
  return token.tokens === undefined ? (token.text ?? token.raw ?? '') : token.tokens.map(span).join('');
}

function span(token: Token): string {
  switch (token.type) {
    case 'strong':
      return styled('bold', inline(token));
    case 'em':
      return styled('italic', inline(token));
    case 'del':
      return styled('strikethrough', inline(token));
    case 'codespan':
      return styled('cyan', token.text);
    case 'br':
      return '\n';
    case 'link':
      return token.text === token.href
        ? styled('underline', token.href)
        : `${inline(token)} ${styled('dim', `(${token.href})`)}`;
    case 'image':
      return `[image: ${token.text || token.href}]`;
    default:
      return inline(token);
  }
}

/** The writer decides whether a terminal shows styles, so the styles do not depend on the standard output of this process. */
function styled(style: Parameters<typeof styleText>[0], text: string): string {
  return styleText(style, text, { validateStream: false });
}

function wrapped(text: string, columns: number): string {
  return wrapAnsi(text, Math.max(1, columns), { hard: true });
}

function indented(text: string, prefix: string): string {
  return text
    .split('\n')
    .map((line) => prefix + line)
    .join('\n');
}
