// System notes: the form of system messages in the middle of a conversation, for chat templates that do not show them
// there. A note is text in a message of the user or in the result of a tool, between the marks `<system-note>` and
// `</system-note>`. Other text in these messages must not pass for a note.
import type { ChatMessage } from './messages.js';

const START = '<system-note>';
const END = '</system-note>';

/** The text that replaces the bracket of a false mark. */
export const ESCAPED_BRACKET = '&lt;';

/** `<`, and characters that look like it. */
const BRACKETS = '<\uFF1C\uFE64\u2039\u3008\u27E8\u276C\u276E\u02C2';

/** Letters of other scripts that look like letters of the mark. */
const LOOK_ALIKES: Readonly<Record<string, string>> = {
  s: '\u0455',
  y: '\u0443',
  t: '\u0442',
  e: '\u0435',
  m: '\u043C',
  o: '\u043E\u03BF',
};

/** Characters that may stand between the letters of a false mark: white space, punctuation, invisible characters. */
const BETWEEN = `(?![${BRACKETS}])[\\s\\p{P}\\p{C}\\p{M}]`;

/** Matches the bracket of a text that looks like a tag with this name. */
export function falseTag(name: string): RegExp {
  const letters = Array.from(name, variantsOf).join(`(?:${BETWEEN})*`);
  return new RegExp(`[${BRACKETS}](?=(?:${BETWEEN})*${letters}(?![\\p{L}\\p{N}]))`, 'giu');
}

const FALSE_MARK = falseTag('systemnote');

/** Whether a text contains something that looks like the start or the end of a note. */
export function hasFalseMark(text: string): boolean {
  return text.search(FALSE_MARK) >= 0;
}

/** Whether a message that may contain notes also contains text that looks like the mark of a note. */
export function needsEscape({ role, content }: ChatMessage): boolean {
  return role !== 'assistant' && hasFalseMark(content);
}

/** Changes the text of a message so that no part of it passes for a mark. */
export function withoutFalseMarks(message: ChatMessage): ChatMessage {
  return needsEscape(message) ? { ...message, content: message.content.replace(FALSE_MARK, ESCAPED_BRACKET) } : message;
}

/**
 * Writes each system message as a note: at the end of the tool results directly in front of it, or otherwise at the
 * beginning of the next turn of the user. If no user message follows directly, the note gets a turn of its own. In the
 * middle of tool calls, a turn of the user would make some chat templates drop the reasoning of earlier replies.
 */
export function withSystemNotes(messages: readonly ChatMessage[]): ChatMessage[] {
  const written: ChatMessage[] = [];
  let notes: string[] = [];
  for (const message of messages) {
    const last = written.at(-1);
    if (message.role === 'system') {
      const note = `${START}\n${message.content}\n${END}`;
      if (last?.role === 'tool' && notes.length === 0) {
        written[written.length - 1] = { ...last, content: joined(last.content, note) };
      } else {
        notes.push(note);
      }
      continue;
    }
    if (message.role === 'user') {
      written.push({ ...message, content: joined(...notes, message.content) });
    } else {
      written.push(...turnOf(notes), message);
    }
    notes = [];
  }
  return [...written, ...turnOf(notes)];
}

/** Joins texts as paragraphs. Leaves out empty texts. */
export function joined(...texts: readonly string[]): string {
  return texts.filter((text) => text !== '').join('\n\n');
}

function turnOf(notes: readonly string[]): ChatMessage[] {
  return notes.length === 0 ? [] : [{ role: 'user', content: joined(...notes) }];
}

/** A regular expression for a letter, its full-width form, its mathematical forms, and letters that look like it. */
function variantsOf(letter: string): string {
  const index = letter.charCodeAt(0) - 'a'.charCodeAt(0);
  const fullWidth = String.fromCodePoint(0xff41 + index);
  const circled = String.fromCodePoint(0x24d0 + index);
  const mathematical = Array.from({ length: 13 }, (_, style) => 0x1d400 + 52 * style + index).flatMap((capital) => [
    String.fromCodePoint(capital),
    String.fromCodePoint(capital + 26),
  ]);
  return `[${letter}${fullWidth}${circled}${mathematical.join('')}${LOOK_ALIKES[letter] ?? ''}]`;
}
