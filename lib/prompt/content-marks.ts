// Marks around the contents of a conversation. A chat template copies the marks into the prompt, so the marks show the
// place of each content. The text without the marks must equal the real prompt. If it does not, the marks changed the
// output of the chat template, and their places prove nothing.
import { randomBytes } from 'node:crypto';
import type { ChatMessage, ToolCall } from './messages.js';
import type { ToolDefinition } from './renderer.js';

/** The content in which a mark stands. */
export interface ContentOwner {
  part: 'system' | 'tool' | 'message';
  /** The index of the tool or message; 0 for the system prompt. */
  index: number;
}

/** A mark in a rendered text. */
export interface LocatedMark {
  /** Unique, except if the chat template writes a content twice. */
  id: number;
  owner: ContentOwner;
  /** Whether the text is the `content` of a message. */
  isContent: boolean;
  /** Whether the mark is in front of a text or after it. */
  side: 'start' | 'end';
  /** The white space between the end of the text and the mark. A chat template may trim this white space. */
  space: string;
  /** The position in the text without marks, in UTF-16 code units. */
  at: number;
}

/** Marks the contents of one conversation. The marks have the form of sentinels: see `withoutSentinels`. */
export class ContentMarks {
  readonly #word = randomBytes(9).toString('hex');
  readonly #marks: Omit<LocatedMark, 'id' | 'at'>[] = [];

  /** A message with marks around its content, its reasoning, and the texts in the arguments of its calls. */
  message(message: ChatMessage, index: number): ChatMessage {
    const owner: ContentOwner = { part: 'message', index };
    if (message.role !== 'assistant') {
      return { ...message, content: this.#around(message.content, owner, true) };
    }
    const { content, reasoning, toolCalls } = message;
    return {
      role: 'assistant',
      content: this.#around(content, owner, true),
      ...(reasoning !== undefined && { reasoning: this.#around(reasoning, owner) }),
      ...(toolCalls !== undefined && { toolCalls: toolCalls.map((call) => this.#call(call, owner)) }),
    };
  }

  systemPrompt(text: string | undefined): string | undefined {
    return text === undefined ? undefined : this.#around(text, { part: 'system', index: 0 });
  }

  /** A tool with marks in front of its name and description. */
  tool(tool: ToolDefinition, index: number): ToolDefinition {
    const owner: ContentOwner = { part: 'tool', index };
    const mark = () => this.#mark({ owner, isContent: false, side: 'start', space: '' });
    const { name, description } = tool;
    return { ...tool, name: mark() + name, ...(description && { description: mark() + description }) };
  }

  /** Removes the marks from a rendered text. */
  read(rendered: string): { text: string; marks: LocatedMark[] } {
    // The flag `i` is needed because chat templates may change the case.
    const parts = rendered.split(new RegExp(`x${this.#word}n(\\d+)x`, 'i'));
    const marks: LocatedMark[] = [];
    let text = '';
    for (const [index, part] of parts.entries()) {
      const mark = index % 2 === 0 ? undefined : this.#marks[Number(part)];
      if (mark === undefined) {
        text += part;
      } else {
        marks.push({ ...mark, id: Number(part), at: text.length });
      }
    }
    return { text, marks };
  }

  #call(call: ToolCall, owner: ContentOwner): ToolCall {
    return { ...call, input: this.#json(call.input, owner) };
  }

  #json(value: unknown, owner: ContentOwner): unknown {
    if (typeof value === 'string') {
      return this.#around(value, owner);
    }
    if (Array.isArray(value)) {
      return value.map((each) => this.#json(each, owner));
    }
    return typeof value === 'object' && value !== null
      ? Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.#json(each, owner)]))
      : value;
  }

  /** The marks stand inside the white space at both ends, so that a chat template still trims it. */
  #around(text: string, owner: ContentOwner, isContent = false): string {
    const core = text.trim();
    if (core === '') {
      return text;
    }
    const from = text.indexOf(core);
    const [before, after] = [text.slice(0, from), text.slice(from + core.length)];
    const start = this.#mark({ owner, isContent, side: 'start', space: before });
    const end = this.#mark({ owner, isContent, side: 'end', space: after });
    return before + start + core + end + after;
  }

  #mark(mark: Omit<LocatedMark, 'id' | 'at'>): string {
    return `x${this.#word}n${this.#marks.push(mark) - 1}x`;
  }
}
