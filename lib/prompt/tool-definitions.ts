// Writes the definitions of deferred tools into the messages that refer to them. A definition has the form in which the
// chat template describes tools. Test renders find this form.
import { LRUCache } from 'lru-cache';
import type { ChatTemplate } from './chat-template.js';
import { commonEnd, commonStart } from './common-text.js';
import { type ContentGuard, withoutSentinels } from './content-guard.js';
import { type ShownReferences, shownReferences } from './deferred-tools.js';
import { guardMessage, guardTool } from './guarded-content.js';
import { type ChatMessage, toOpenAiTool } from './messages.js';
import type { TemplateSource, ToolDefinition } from './renderer.js';
import { ESCAPED_BRACKET, falseTag } from './system-notes.js';

/** The maximum number of remembered texts. */
const MAX_REMEMBERED = 1024;

const MESSAGES: readonly ChatMessage[] = [{ role: 'user', content: 'x' }];

/** Two tools that differ in every part. So their texts have only the markup around a tool in common. */
const PROBES: readonly [ToolDefinition, ToolDefinition] = [
  { name: 'a_headstart' },
  {
    name: 'z_headstart',
    description: 'Headstart.',
    parameters: { type: 'object', properties: { headstart: { type: 'integer' } }, required: ['headstart'] },
  },
];

/** The prompts with each probe alone, and with both probes in both orders. */
type ProbePrompts = [a: string, z: string, az: string, za: string];

/** Matches the bracket of a text that looks like the tags around definitions. */
const FALSE_TAG = falseTag('tools');

/** Writes the definitions of one chat template. */
export class ToolDefinitions {
  readonly #chatTemplate: ChatTemplate;
  readonly #texts = new LRUCache<string, string>({ max: MAX_REMEMBERED });

  constructor(chatTemplate: ChatTemplate) {
    this.#chatTemplate = chatTemplate;
  }

  /**
   * Guards messages, and adds the definitions to which they refer. Text of users and tools must not look like a
   * definition, so the brackets of such text are replaced.
   */
  async write(
    { tools = [], systemPrompt }: TemplateSource,
    messages: readonly ChatMessage[],
    guard: ContentGuard,
  ): Promise<ChatMessage[]> {
    const shown = shownReferences(tools, messages);
    const withSystemPrompt = systemPrompt !== undefined;
    let probes: Promise<ProbePrompts> | undefined;
    // These prompts are not kept for later calls, because some chat templates write the date.
    const probePrompts = () => (probes ??= this.#probePrompts(withSystemPrompt));
    const written: ChatMessage[] = [];
    for (const [index, message] of messages.entries()) {
      const guarded = guardMessage(withoutFalseTags(message), guard);
      const { definitions, notes } = shown[index] as ShownReferences;
      const texts: string[] = [];
      for (const tool of definitions) {
        texts.push(await this.#textOf(guardTool(tool, guard), withSystemPrompt, probePrompts));
      }
      const block = texts.length === 0 ? [] : [`<tools>\n${texts.join('\n')}\n</tools>`];
      const parts = [
        guarded.content,
        ...block,
        ...notes.map((note) => guard.text(note.replace(FALSE_TAG, ESCAPED_BRACKET))),
      ];
      written.push({ ...guarded, content: parts.filter((part) => part !== '').join('\n') });
    }
    return written;
  }

  /**
   * The text that describes a tool. If the chat template describes no tools, or if its form cannot be found, the text
   * is the JSON of the tool, as in the Hermes form.
   */
  async #textOf(
    tool: ToolDefinition,
    withSystemPrompt: boolean,
    probePrompts: () => Promise<ProbePrompts>,
  ): Promise<string> {
    const json = JSON.stringify(toOpenAiTool(tool));
    const key = `${withSystemPrompt} ${json}`;
    const known = this.#texts.get(key);
    if (known !== undefined) {
      return known;
    }
    const describesTools = await this.#chatTemplate.describesTools(withSystemPrompt);
    const inForm = describesTools
      ? textInForm(await this.#render([tool], withSystemPrompt), await probePrompts())
      : undefined;
    const text = inForm ?? json;
    if (withoutSentinels(json) === json) {
      this.#texts.set(key, text); // a text with sentinels is valid only for one prompt
    }
    return text;
  }

  async #probePrompts(withSystemPrompt: boolean): Promise<ProbePrompts> {
    const [a, z] = PROBES;
    const prompts: string[] = [];
    for (const tools of [[a], [z], [a, z], [z, a]]) {
      prompts.push(await this.#render(tools, withSystemPrompt));
    }
    return prompts as ProbePrompts;
  }

  /** The prompt of a conversation with these tools. Empty if the chat template refuses the tools. */
  async #render(tools: readonly ToolDefinition[], withSystemPrompt: boolean): Promise<string> {
    const source = withSystemPrompt ? { systemPrompt: 'x' } : {};
    return (await this.#chatTemplate.tryToRender(source, MESSAGES, tools, { toolChoice: 'none' }))?.prompt ?? '';
  }
}

/** Replies stay unchanged, because their tokens may be in the KV cache. Only the program writes system messages. */
function withoutFalseTags<T extends ChatMessage>(message: T): T {
  const isForeign = message.role === 'user' || message.role === 'tool';
  return isForeign ? { ...message, content: message.content.replace(FALSE_TAG, ESCAPED_BRACKET) } : message;
}

/**
 * Returns the text of a tool with its markup. The markup around a tool is in all of these prompts. The text between two
 * tools shows where this markup begins and ends.
 *
 * @param alone the prompt with this tool only
 * @returns undefined if the chat template does not write tools one after another in the same form
 */
function textInForm(alone: string, [a, z, az, za]: ProbePrompts): string | undefined {
  const front = [alone, a, z].reduce(commonStart);
  const back = [alone, a, z].map((prompt) => prompt.slice(front.length)).reduce(commonEnd);
  const withoutMarkup = (prompt: string) => prompt.slice(front.length, prompt.length - back.length);
  const between = (first: string, second: string, both: string) => {
    const start = front + withoutMarkup(first);
    const end = withoutMarkup(second) + back;
    const isUsable = both.length >= start.length + end.length && both.startsWith(start) && both.endsWith(end);
    return isUsable ? both.slice(start.length, both.length - end.length) : undefined;
  };
  const gap = between(a, z, az);
  if (!gap || gap !== between(z, a, za)) {
    return undefined;
  }
  const [tail, head] = splitGap(gap, commonStart(gap, back), commonEnd(gap, front));
  return `${head}${withoutMarkup(alone)}${tail}`.trim();
}

/**
 * Splits the text between two tools into the end of one tool and the start of the next. If `tail` and `head` overlap,
 * the next tool starts at white space or an opening bracket in their common part.
 *
 * @param tail the longest text that may be the end of a tool
 * @param head the longest text that may be the start of a tool
 */
function splitGap(gap: string, tail: string, head: string): [tail: string, head: string] {
  const overlap = gap.slice(gap.length - head.length, tail.length);
  if (overlap === '') {
    return [tail, head];
  }
  const cut = gap.length - head.length + Math.max(0, overlap.search(/[\s<{[(]/));
  return [gap.slice(0, cut), gap.slice(cut)];
}
