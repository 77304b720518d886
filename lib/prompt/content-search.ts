// Finds the texts of a conversation in its prompt, without another render.
import { isObject } from '../json.js';
import type { ContentOwner } from './content-marks.js';
import type { ChatMessage } from './messages.js';
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

/** Finds the contents of a conversation in the text of its prompt. The result is ascending by position. */
export function findContents(
  text: string,
  { systemPrompt = '', tools = [] }: TemplateSource,
  messages: readonly ChatMessage[],
): LocatedContent[] {
  const ofMessages = locate(text, messages.flatMap(messageContents));
  const ofSystem = locate(text, contentsOf({ part: 'system', index: 0 }, [systemPrompt]));
  return [...ofSystem, ...locateTools(text, tools, ofMessages), ...ofMessages].sort((a, b) => a.start - b.start);
}

/**
 * Finds the definitions of the tools. They are all in one place: in front of a message, or after the last one. Calls of
 * the tools in other places have their names too.
 */
function locateTools(
  text: string,
  tools: readonly ToolDefinition[],
  ofMessages: readonly LocatedContent[],
): LocatedContent[] {
  const nameFirst = tools.flatMap(({ name, description = '' }, index) =>
    contentsOf({ part: 'tool', index }, [name, description]),
  );
  const descriptionFirst = tools.flatMap(({ name, description = '' }, index) =>
    contentsOf({ part: 'tool', index }, [description, name]),
  );
  let best: LocatedContent[] = [];
  for (let at = 0; at <= ofMessages.length; at++) {
    const [from, to] = [ofMessages[at - 1]?.end ?? 0, ofMessages[at]?.start ?? text.length];
    for (const contents of [nameFirst, descriptionFirst]) {
      const located = locate(text, contents, from, to);
      best = located.length > best.length ? located : best;
    }
  }
  return best.length * 2 >= nameFirst.length ? best : [];
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
