// Finds the place of each content in a prompt, with marks around the contents.
import { unlessRefused } from './chat-template.js';
import { ContentMarks, type LocatedMark } from './content-marks.js';
import type { ChatMessage } from './messages.js';
import type { RenderedText, Renderer, TemplateSource, TextOptions, ToolDefinition } from './renderer.js';

/** A rendered conversation, and the places of its contents. */
export interface LocatedConversation extends RenderedText {
  source: TemplateSource;
  messages: readonly ChatMessage[];
  options: TextOptions;
  marks: ContentMarks;
  /** Ascending by position. */
  located: readonly LocatedMark[];
  /** The messages with the marks that are in `located`. */
  markedMessages: readonly ChatMessage[];
  /** The tools with the marks that are in `located`; undefined if there are no such marks. */
  markedTools: readonly ToolDefinition[] | undefined;
}

/** A part of a conversation whose contents are marked together. The numbers are indices of messages. */
type Unit = 'system' | 'tools' | number;

/**
 * Marks the contents of a conversation. If the marks change the text that the chat template writes, marks parts of the
 * conversation separately, and leaves out the parts whose marks cause the change.
 */
export async function locateContents(
  renderer: Renderer,
  { text, opening }: RenderedText,
  source: TemplateSource,
  messages: readonly ChatMessage[],
  options: TextOptions,
): Promise<LocatedConversation> {
  const marks = new ContentMarks();
  const { systemPrompt, tools = [] } = source;
  const marked = {
    systemPrompt: marks.systemPrompt(systemPrompt),
    tools: tools.map((tool, index) => (tool.deferred ? tool : marks.tool(tool, index))),
    messages: messages.map((message, index) => marks.message(message, index)),
  };
  const messagesWith = (units: ReadonlySet<Unit>) =>
    messages.map((message, index) => (units.has(index) ? (marked.messages[index] as ChatMessage) : message));
  const usable = new Set<Unit>();
  const locate = async (list: readonly Unit[]): Promise<LocatedMark[]> => {
    const units = new Set(list);
    const markedSource = {
      systemPrompt: units.has('system') ? marked.systemPrompt : systemPrompt,
      tools: units.has('tools') ? marked.tools : tools,
    };
    const rendered = await unlessRefused(renderer.text(markedSource, messagesWith(units), options));
    const found = rendered && marks.read(rendered.text);
    if (found?.text === text) {
      for (const unit of list) {
        usable.add(unit);
      }
      return found.marks;
    }
    const half = list.length >> 1;
    return half === 0 ? [] : [...(await locate(list.slice(0, half))), ...(await locate(list.slice(half)))];
  };
  const located = await locate(['system', 'tools', ...messages.keys()]);
  return {
    ...{ text, opening, source, messages, options, marks },
    located: located.sort((a, b) => a.at - b.at),
    markedMessages: messagesWith(usable),
    markedTools: usable.has('tools') ? marked.tools : undefined,
  };
}
