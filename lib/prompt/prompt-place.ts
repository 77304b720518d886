// Finds the message or tool that has a token of a prompt. The search renders nothing, so that it is cheap enough for
// every reply: it looks for the contents in the text of the prompt.

import { isObject } from '../json.js';
import type { Model } from '../native/model.js';
import type { ContentOwner } from './content-marks.js';
import type { ChatMessage } from './messages.js';
import type { TemplateSource, TokenizedPrompt, ToolDefinition } from './renderer.js';

/** A part of a text, in UTF-16 code units. */
interface TextRange {
  start: number;
  end: number;
}

/** A text of a message or tool, which the chat template most likely copies into the prompt. */
interface Content {
  owner: ContentOwner;
  text: string;
}

/** A content at its place in the prompt. */
interface LocatedContent extends Content, TextRange {}

/**
 * The message, tool or system prompt that has a token. The markup between two messages belongs to the second one,
 * except its first token.
 *
 * @returns undefined if the place is not certain, for example because the chat template rewrites the content
 */
export function ownerOfToken(
  model: Model,
  prompt: TokenizedPrompt,
  index: number,
  source: TemplateSource,
  messages: readonly ChatMessage[],
): ContentOwner | 'opening' | undefined {
  const range = index < prompt.tokens.length ? rangeOfToken(model, prompt, index) : undefined;
  if (range === undefined) {
    return undefined;
  }
  if (prompt.opening !== '' && range.start >= prompt.text.length - prompt.opening.length) {
    return 'opening';
  }
  const located = [
    ...locate(prompt.text, systemContents(source)),
    ...locate(prompt.text, (source.tools ?? []).flatMap(toolContents)),
    ...locate(prompt.text, messages.flatMap(messageContents)),
  ].sort((a, b) => a.start - b.start);
  return ownerAt(prompt.text, located, range);
}

function ownerAt(
  text: string,
  located: readonly LocatedContent[],
  { start, end }: TextRange,
): ContentOwner | undefined {
  const next = located.findIndex((content) => content.start >= end);
  const [before, after] = next === -1 ? [located.at(-1), undefined] : [located[next - 1], located[next]];
  if (before === undefined) {
    return after?.owner.index === 0 ? after.owner : undefined;
  }
  if (start < before.end || isSame(before.owner, after?.owner)) {
    return before.owner;
  }
  const gap = text.slice(before.end, after?.start);
  if (start < before.end + endIn(gap, before.owner)) {
    return before.owner;
  }
  return after && ownerBetween(before.owner, after.owner);
}

/** The owner of the markup between two contents, without the markup that ends the first of them. */
function ownerBetween(before: ContentOwner, after: ContentOwner): ContentOwner | undefined {
  const skipped = before.part === after.part ? after.index - before.index - 1 : after.index;
  // If there is one message without a content between them, most of the markup is its own.
  const index = skipped === 1 ? after.index - 1 : after.index;
  return skipped <= 1 ? { ...after, index } : undefined;
}

/**
 * How much of the text after a content still belongs to its owner: the definition of a tool ends at a brace, and
 * a message ends with the first markup after it.
 */
function endIn(gap: string, { part }: ContentOwner): number {
  return part === 'tool' ? gap.lastIndexOf('}') + 1 : gap.length - gap.trimStart().length + 1;
}

function isSame(a: ContentOwner, b: ContentOwner | undefined): boolean {
  return a.part === b?.part && a.index === b.index;
}

/**
 * Finds contents that are in the text in this order. A content is found if its earliest possible place is also its
 * latest one. The contents between two found ones are then searched between these two.
 */
function locate(text: string, contents: readonly Content[], from = 0, to = text.length): LocatedContent[] {
  const earliest = earliestPlaces(text, contents, from, to);
  const latest = latestPlaces(text, contents, from, to);
  const located: LocatedContent[] = [];
  let unknown: Content[] = [];
  const locateUnknown = (end: number) => {
    // If nothing was found between two places, searching there again would find nothing either.
    const isSmaller = unknown.length > 0 && unknown.length < contents.length;
    return isSmaller ? locate(text, unknown, located.at(-1)?.end ?? from, end) : [];
  };
  for (const [index, content] of contents.entries()) {
    const place = earliest[index];
    if (place !== undefined && place.start === latest[index]?.start) {
      located.push(...locateUnknown(place.start), { ...content, ...place });
      unknown = [];
    } else {
      unknown.push(content);
    }
  }
  located.push(...locateUnknown(to));
  return located;
}

/** The first place of each content after those in front of it. */
function earliestPlaces(
  text: string,
  contents: readonly Content[],
  from: number,
  to: number,
): (TextRange | undefined)[] {
  let at = from;
  return contents.map((content) => {
    for (const form of formsOf(content)) {
      const start = text.indexOf(form, at);
      if (start !== -1 && start + form.length <= to) {
        at = start + form.length;
        return { start, end: at };
      }
    }
    return undefined;
  });
}

/** The last place of each content in front of those after it. */
function latestPlaces(text: string, contents: readonly Content[], from: number, to: number): (TextRange | undefined)[] {
  let at = to;
  const place = (content: Content): TextRange | undefined => {
    for (const form of formsOf(content)) {
      const start = form.length > at ? -1 : text.lastIndexOf(form, at - form.length);
      if (start >= from) {
        at = start;
        return { start, end: start + form.length };
      }
    }
    return undefined;
  };
  return [...contents].reverse().map(place).reverse();
}

/** The forms of a content in a prompt: as it is, or inside a JSON string. */
function formsOf({ text }: Content): string[] {
  const escaped = JSON.stringify(text).slice(1, -1);
  return escaped === text ? [text] : [text, escaped];
}

function systemContents({ systemPrompt = '' }: TemplateSource): Content[] {
  return contentsOf({ part: 'system', index: 0 }, [systemPrompt]);
}

function toolContents({ name, description = '' }: ToolDefinition, index: number): Content[] {
  return contentsOf({ part: 'tool', index }, [name, description]);
}

function messageContents(message: ChatMessage, index: number): Content[] {
  const calls = (message.role === 'assistant' && message.toolCalls) || [];
  const called = calls.flatMap(({ toolName, input }) => [
    toolName,
    ...(isObject(input) ? Object.values(input).filter((each) => typeof each === 'string') : []),
  ]);
  return contentsOf({ part: 'message', index }, [message.content, ...called]);
}

function contentsOf(owner: ContentOwner, texts: readonly string[]): Content[] {
  return texts.map((text) => ({ owner, text: text.trim() })).filter(({ text }) => text !== '');
}

const SPACE = 0x20;

/**
 * The text of one token. Walks to the token from the nearer end of the prompt.
 *
 * @returns undefined if the text of the tokens is not the text of the prompt, as with a tokenizer that changes case
 */
function rangeOfToken(model: Model, { tokens, text }: TokenizedPrompt, index: number): TextRange | undefined {
  const bytes = Buffer.from(text);
  const walks = [forward, backward];
  const [first, second] = (index < tokens.length / 2 ? walks : walks.reverse()) as [typeof forward, typeof forward];
  const found = first(model, tokens, bytes, index) ?? second(model, tokens, bytes, index);
  const unitsIn = (length: number) => bytes.toString('utf8', 0, length).length;
  return found && { start: unitsIn(found.start), end: unitsIn(found.end) };
}

function forward(model: Model, tokens: Int32Array, text: Buffer, index: number): TextRange | undefined {
  let start = 0;
  for (let at = 0; ; at++) {
    const token = bytesOf(model, tokens, at).find((bytes) => isAt(text, bytes, start));
    if (token === undefined || at === index) {
      return token && { start, end: start + token.length };
    }
    start += token.length;
  }
}

function backward(model: Model, tokens: Int32Array, text: Buffer, index: number): TextRange | undefined {
  let end = text.length;
  for (let at = tokens.length - 1; ; at--) {
    const to = end;
    const token = bytesOf(model, tokens, at).find((bytes) => isAt(text, bytes, to - bytes.length));
    if (token === undefined || at === index) {
      return token && { start: end - token.length, end };
    }
    end -= token.length;
  }
}

function isAt(text: Buffer, bytes: Uint8Array, start: number): boolean {
  const end = start + bytes.length;
  return start >= 0 && end <= text.length && text.compare(bytes, 0, bytes.length, start, end) === 0;
}

/** SentencePiece puts a space in front of a text, and after a control token. The prompt may not have this space. */
function bytesOf(model: Model, tokens: Int32Array, index: number): Uint8Array[] {
  const { bos, addsBos } = model.info.vocabulary;
  const token = tokens[index] as number;
  if (index === 0 && addsBos && token === bos) {
    return [new Uint8Array()];
  }
  const bytes = model.tokenToBytes(token, { special: true });
  return bytes[0] === SPACE ? [bytes, bytes.subarray(1)] : [bytes];
}
