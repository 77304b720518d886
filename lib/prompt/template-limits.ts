// Finds out by rendering test conversations which orders and forms of messages a chat template shows.

import { remembered } from '../remembered.js';
import type { ChatTemplate } from './chat-template.js';
import { type ChatMessage, callsOf, type ToolCall } from './messages.js';
import type { TemplateSource, ToolDefinition } from './renderer.js';

/** Texts that no chat template contains. A test conversation contains each text at most once. */
const TEXTS = [
  'headstart a 6f2b',
  'headstart b 6f2b',
  'headstart c 6f2b',
  'headstart d 6f2b',
  'headstart e 6f2b',
] as const;
const [FIRST, SECOND, THIRD, FOURTH, FIFTH] = TEXTS;
const TOOL = 'headstart_probe_6f2b';

const user = (content: string): ChatMessage => ({ role: 'user', content });
const reply = (content: string): ChatMessage => ({ role: 'assistant', content });
const calls = (...toolCalls: readonly ToolCall[]): ChatMessage => ({ role: 'assistant', content: '', toolCalls });
const call = (input: unknown, toolCallId = 'headstart'): ToolCall => ({ toolCallId, toolName: TOOL, input });
const result = (content: string, toolCallId = 'headstart'): ChatMessage => ({
  role: 'tool',
  toolName: TOOL,
  toolCallId,
  content,
});

/** A property of a history that some chat templates refuse or do not show. */
export type HistoryFeature = keyof typeof PROBES;

/** A test conversation for each feature. */
const PROBES = {
  /** A system message in the middle of the conversation, at its place. */
  systemMessages: [user(FIRST), reply(SECOND), { role: 'system', content: THIRD }, user(FOURTH)],
  /** A system message between the system prompt and the first message of the user. */
  systemMessageFirst: [{ role: 'system', content: FIRST }, user(SECOND), reply(THIRD), user(FOURTH)],
  /** Several messages of the user, or several replies, in a row. */
  repeatedRoles: [user(FIRST), user(SECOND), reply(THIRD), reply(FOURTH), user(FIFTH)],
  /** A reply at the beginning. */
  replyFirst: [reply(FIRST), user(SECOND)],
  /** A message of the user right after the results of tool calls. */
  userAfterResults: [user(FIRST), calls(call({ probe: SECOND })), result(THIRD), user(FOURTH)],
  /** Several calls in one message. */
  severalCalls: [
    user(FIRST),
    calls(call({ probe: SECOND }, 'headstart'), call({ probe: THIRD }, 'headstar2')),
    result(FOURTH, 'headstart'),
    result(FIFTH, 'headstar2'),
  ],
  /** Ids of calls that are not nine letters and digits. */
  anyCallIds: [user(FIRST), calls(call({ probe: SECOND }, 'call_headstart')), result(THIRD, 'call_headstart')],
  /** Arguments of a call that are text instead of an object. */
  textArguments: [user(FIRST), calls(call(SECOND)), result(THIRD)],
} satisfies Record<string, readonly ChatMessage[]>;

/** The limits of one chat template. Each feature is probed only once. */
export class TemplateLimits {
  readonly #chatTemplate: ChatTemplate;
  readonly #answers = new Map<HistoryFeature, Promise<boolean>>();

  constructor(chatTemplate: ChatTemplate) {
    this.#chatTemplate = chatTemplate;
  }

  /**
   * Whether the chat template shows histories with this feature: each text once, and in the order of the messages. Calls
   * and results may be in another order, because some chat templates write all calls of a conversation differently.
   */
  shows(feature: HistoryFeature): Promise<boolean> {
    return remembered(this.#answers, feature, () => this.#probe(feature));
  }

  async #probe(feature: HistoryFeature): Promise<boolean> {
    if (feature === 'systemMessages') {
      const tools = [{ name: TOOL }];
      return (await this.#showsSystemMessages({}, [])) && this.#showsSystemMessages({ systemPrompt: 'x' }, tools);
    }
    if (feature === 'systemMessageFirst') {
      return (await this.#showsSystemMessageFirst([])) && this.#showsSystemMessageFirst([{ name: TOOL }]);
    }
    const messages: readonly ChatMessage[] = PROBES[feature];
    const isAboutCalls = messages.some((message) => callsOf(message).length > 0);
    const prompt = await this.#text({}, messages, isAboutCalls ? [{ name: TOOL }] : []);
    const expected = TEXTS.filter((text) => JSON.stringify(messages).includes(text));
    return (isAboutCalls ? textsIn(prompt).sort() : textsIn(prompt)).join() === expected.join();
  }

  /**
   * Whether the chat template shows a system message in the middle at its place, and changes nothing else. Some chat
   * templates then leave out their default system prompt, or repeat the tools.
   */
  async #showsSystemMessages(source: TemplateSource, tools: readonly ToolDefinition[]): Promise<boolean> {
    const messages = PROBES.systemMessages;
    const prompt = await this.#text(source, messages, tools);
    const plain = await this.#text(
      source,
      messages.filter(({ role }) => role !== 'system'),
      tools,
    );
    const [head, rest] = splitAfter(prompt, SECOND);
    const [plainHead, plainRest] = splitAfter(plain, SECOND);
    const isShown = textsIn(prompt).join() === [FIRST, SECOND, THIRD, FOURTH].join();
    return isShown && head === plainHead && rest.includes(TOOL) === plainRest.includes(TOOL);
  }

  /**
   * Whether the chat template shows a system message between the system prompt and the first message of the user, and
   * changes nothing else. Some chat templates take such a message for the first message of the user.
   */
  async #showsSystemMessageFirst(tools: readonly ToolDefinition[]): Promise<boolean> {
    const messages: readonly ChatMessage[] = PROBES.systemMessageFirst;
    const others = messages.slice(1);
    const textOf = (...messages: readonly ChatMessage[]) => this.#text({ systemPrompt: 'x' }, messages, tools);
    const prompt = await textOf(...messages);
    const isShown = textsIn(prompt).join() === [FIRST, SECOND, THIRD, FOURTH].join();
    return isShown && isInsertion(await textOf(...others), prompt) && prompt !== (await textOf(user(FIRST), ...others));
  }

  /**
   * The prompt in lower case, because a chat template may change the case; empty if the chat template refuses the
   * conversation.
   */
  async #text(
    source: TemplateSource,
    messages: readonly ChatMessage[],
    tools: readonly ToolDefinition[],
  ): Promise<string> {
    const options = { textOnly: true, toolChoice: 'none' } as const;
    return (await this.#chatTemplate.tryToRender(source, messages, tools, options))?.prompt.toLowerCase() ?? '';
  }
}

function splitAfter(prompt: string, text: string): [head: string, rest: string] {
  const end = prompt.indexOf(text) + text.length;
  return [prompt.slice(0, end), prompt.slice(end)];
}

/** The texts of a test conversation in a prompt, in their order. */
function textsIn(prompt: string): string[] {
  return prompt.match(new RegExp(TEXTS.join('|'), 'g')) ?? [];
}

/** Whether a text consists of another text and one insertion. */
function isInsertion(text: string, longer: string): boolean {
  const inserted = longer.length - text.length;
  let shared = 0;
  while (shared < text.length && text[shared] === longer[shared]) {
    shared++;
  }
  return inserted >= 0 && text.slice(shared) === longer.slice(shared + inserted);
}
