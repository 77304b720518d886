// Finds the text of each tool in a prompt.
import { unlessRefused } from './chat-template.js';
import { commonEnd } from './common-text.js';
import type { LocatedMark } from './content-marks.js';
import { toolsInHead } from './deferred-tools.js';
import type { LocatedConversation } from './located-conversation.js';
import type { Renderer, ToolDefinition } from './renderer.js';

/** A part of a text, in UTF-16 code units. */
export interface TextRange {
  start: number;
  end: number;
}

/** Replaces some of the tools. */
interface Replacement {
  isReplaced: (index: number, last: number) => boolean;
  other: (tool: ToolDefinition) => ToolDefinition;
}

/** A tool without parameters also replaces the last tool, because the end of a tool may depend on its parameters. */
const REPLACEMENTS: readonly Replacement[] = [
  { isReplaced: (index) => index % 2 === 0, other: otherTool },
  { isReplaced: (index) => index % 2 === 1, other: otherTool },
  { isReplaced: (index, last) => index === last, other: bareTool },
];

/**
 * The text from the first mark of each tool to the first mark of the next tool. Undefined if this text depends on
 * other tools, or if other text depends on this tool. To find out, renders the conversation with some tools replaced by
 * other tools. Leaves out deferred tools, which follow all other tools.
 */
export async function findToolRanges(
  renderer: Renderer,
  { text, located, source, messages, options, marks, markedTools = [] }: LocatedConversation,
): Promise<TextRange[] | undefined> {
  const tools = toolsInHead(markedTools);
  const deferred = markedTools.filter((tool) => tool.deferred);
  const starts = startsOf(located, tools.length);
  const last = tools.length - 1;
  if (starts === undefined || last < 0) {
    return undefined;
  }
  let end = starts[last] as number;
  for (const { isReplaced, other } of REPLACEMENTS) {
    const others = tools.map((tool, index) => (isReplaced(index, last) ? other(tool) : tool));
    const rendered = await unlessRefused(
      renderer.text({ ...source, tools: [...others, ...deferred] }, messages, options),
    );
    const found = rendered && marks.read(rendered.text);
    const otherStarts = found && startsOf(found.marks, tools.length);
    const isKept = (index: number) => !isReplaced(index, last);
    if (
      otherStarts === undefined ||
      !agree({ text, starts }, { text: found?.text ?? '', starts: otherStarts }, isKept)
    ) {
      return undefined;
    }
    if (isReplaced(last, last)) {
      const [tail, otherTail] = [text.slice(starts[last]), found?.text.slice(otherStarts[last]) ?? ''];
      end = Math.max(end, text.length - commonEnd(tail, otherTail).length);
    }
  }
  const next = located.find(({ owner, at }) => owner.part !== 'tool' && at >= (starts[0] as number));
  return next !== undefined && next.at < end
    ? undefined
    : starts.map((start, index) => ({ start, end: starts[index + 1] ?? end }));
}

/** The first mark of each tool; undefined if the marks of one tool are among those of another. */
function startsOf(located: readonly LocatedMark[], count: number): number[] | undefined {
  const starts: number[] = [];
  for (const { owner, at } of located) {
    if (owner.part !== 'tool' || owner.index === starts.length - 1) {
      continue;
    }
    if (owner.index !== starts.length) {
      return undefined;
    }
    starts.push(at);
  }
  return starts.length === count ? starts : undefined;
}

interface TextWithTools {
  text: string;
  starts: readonly number[];
}

/** Whether two texts are equal in front of all tools, and for the tools that both have. */
function agree(a: TextWithTools, b: TextWithTools, isKept: (index: number) => boolean): boolean {
  const toolIn = ({ text, starts }: TextWithTools, index: number) => text.slice(starts[index], starts[index + 1]);
  return (
    a.text.slice(0, a.starts[0]) === b.text.slice(0, b.starts[0]) &&
    a.starts.every((_, index) => !isKept(index) || toolIn(a, index) === toolIn(b, index))
  );
}

function otherTool({ name, description }: ToolDefinition): ToolDefinition {
  return {
    name: `${name}_headstart`,
    ...(description && { description: `${description} headstart` }),
    parameters: { type: 'object', properties: { headstart: { type: 'string', description: 'x' } } },
  };
}

function bareTool({ name, description }: ToolDefinition): ToolDefinition {
  return { name, ...(description && { description }) };
}
