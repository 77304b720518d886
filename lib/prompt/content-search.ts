// Finds the texts of a conversation in its prompt, without another render.
import { isObject } from '../json.js';
import type { ContentOwner } from './content-marks.js';
import { type ChatMessage, callsOf } from './messages.js';
import type { TemplateSource, ToolDefinition } from './renderer.js';

/** A part of a text, in UTF-16 code units. */
export interface TextRange {
  start: number;
  end: number;
}

/** A text of a message or tool, which the chat template most likely copies into the prompt. */
interface Content {
  owner: ContentOwner;
  text: string;
}

/** A content at its place in the prompt. */
export interface LocatedContent extends Content, TextRange {}

/**
 * Maximum number of characters that one search compares. A search must not block JavaScript, and each content that is
 * not in the text is searched for up to the end of the text. Contents that are left then count as not found.
 */
const MAX_SEARCHED = 20_000_000;

interface Budget {
  /** How many characters may still be searched. */
  left: number;
}

/** Finds the contents of messages in the text of their prompt. The result is ascending by position. */
export function findMessages(text: string, messages: readonly ChatMessage[]): LocatedContent[] {
  return locate(text, { start: 0, end: text.length }, messages.flatMap(messageContents));
}

/**
 * Finds the system prompt and the tools in a part of the text that has no content of a message. The result is ascending
 * by position.
 */
export function findSource(text: string, part: TextRange, source: TemplateSource): LocatedContent[] {
  const { systemPrompt = '', tools = [] } = source;
  const ofSystem = locate(text, part, contentsOf({ part: 'system', index: 0 }, [systemPrompt]));
  return [...ofSystem, ...findTools(text, part, tools)].sort((a, b) => a.start - b.start);
}

/** Finds the definitions of the tools, or none if most of their names and descriptions are not in this part. */
function findTools(text: string, part: TextRange, tools: readonly ToolDefinition[]): LocatedContent[] {
  const contents = (isNameFirst: boolean) =>
    tools.flatMap(({ name, description = '' }, index) =>
      contentsOf({ part: 'tool', index }, isNameFirst ? [name, description] : [description, name]),
    );
  const nameFirst = locate(text, part, contents(true));
  const wanted = contents(true).length;
  const found = nameFirst.length === wanted ? nameFirst : longer(nameFirst, locate(text, part, contents(false)));
  return found.length * 2 >= wanted ? found : [];
}

function longer<T>(a: T[], b: T[]): T[] {
  return b.length > a.length ? b : a;
}

function messageContents(message: ChatMessage, index: number): Content[] {
  const called = callsOf(message).flatMap(({ toolName, input }) => [
    toolName,
    ...(isObject(input) ? Object.values(input).filter((each) => typeof each === 'string') : []),
  ]);
  return contentsOf({ part: 'message', index }, [message.content, ...called]);
}

function contentsOf(owner: ContentOwner, texts: readonly string[]): Content[] {
  return texts.map((text) => ({ owner, text: text.trim() })).filter(({ text }) => text !== '');
}

/**
 * Finds contents that are in this part of the text in this order. A content is found if its earliest possible place is
 * also its latest one. The contents between two found ones are then searched between these two.
 */
function locate(
  text: string,
  part: TextRange,
  contents: readonly Content[],
  budget: Budget = { left: MAX_SEARCHED },
): LocatedContent[] {
  const searched = text.slice(part.start, part.end);
  const earliest = earliestPlaces(searched, contents, budget);
  const latest = latestPlaces(searched, contents, budget);
  const located: LocatedContent[] = [];
  let unknown: Content[] = [];
  const locateUnknown = (end: number) => {
    // If nothing was found between two places, searching there again would find nothing either.
    const isSmaller = unknown.length > 0 && unknown.length < contents.length;
    const start = located.at(-1)?.end ?? part.start;
    return isSmaller ? locate(text, { start, end }, unknown, budget) : [];
  };
  for (const [index, content] of contents.entries()) {
    const place = earliest[index];
    if (place !== undefined && place.start === latest[index]?.start) {
      const [start, end] = [part.start + place.start, part.start + place.end];
      located.push(...locateUnknown(start), { ...content, start, end });
      unknown = [];
    } else {
      unknown.push(content);
    }
  }
  located.push(...locateUnknown(part.end));
  return located;
}

/** The first possible place of each content, after the places of the contents in front of it. */
function earliestPlaces(text: string, contents: readonly Content[], budget: Budget): (TextRange | undefined)[] {
  let at = 0;
  return contents.map((content) => {
    for (const form of budget.left > 0 ? formsOf(content) : []) {
      const start = text.indexOf(form, at);
      budget.left -= (start === -1 ? text.length : start) - at;
      if (start !== -1) {
        at = start + form.length;
        return { start, end: at };
      }
    }
    return undefined;
  });
}

/** The last possible place of each content, in front of the places of the contents after it. */
function latestPlaces(text: string, contents: readonly Content[], budget: Budget): (TextRange | undefined)[] {
  let at = text.length;
  const place = (content: Content): TextRange | undefined => {
    for (const form of budget.left > 0 ? formsOf(content) : []) {
      const start = form.length > at ? -1 : text.lastIndexOf(form, at - form.length);
      budget.left -= at - Math.max(0, start);
      if (start !== -1) {
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
