// The conversation of `chat` and `run`: a session that can be changed between two messages.
import type { AgentServer } from '../../agent/agent-server.js';
import type { StartReport } from '../../cache/start-report.js';
import type { TurnInput } from '../../chat/conversation.js';
import type { SendOptions } from '../../chat/send-options.js';
import type { ReplyStream } from '../../generate/reply-stream.js';
import type { Reply, StreamPart } from '../../generate/stream-parts.js';
import { definedOptions } from '../../options.js';
import type { ChatMessage } from '../../prompt/messages.js';
import { readSession } from '../../session/persistence/saved-session.js';
import type { Session } from '../../session/session.js';
import type { SessionOptions } from '../../session/session-options.js';
import type { Tool } from '../../tools/tool.js';
import type { ToolCallHook } from '../../tools/tool-call-hook.js';

/** What a conversation consists of besides its messages. */
export interface ConversationSettings {
  systemPrompt: string | undefined;
  tools: readonly Tool[] | undefined;
  /** Approves tool calls. Undefined: all calls run. */
  onToolCall: ToolCallHook | undefined;
  /** Options of each turn. */
  turn: SendOptions;
}

/** A conversation that the user can shorten, copy, save and load. */
export class Conversation {
  readonly #agent: AgentServer;
  #settings: ConversationSettings;
  #session: Session;

  private constructor(agent: AgentServer, settings: ConversationSettings, session: Session) {
    this.#agent = agent;
    this.#settings = settings;
    this.#session = session;
  }

  /** @throws HeadstartError as `AgentServer.createSession`. */
  static async open(agent: AgentServer, settings: ConversationSettings, signal?: AbortSignal): Promise<Conversation> {
    return new Conversation(agent, settings, await agent.createSession(sessionOptions(settings, signal)));
  }

  /** How the session started. */
  get report(): Readonly<StartReport> {
    return this.#session.report;
  }

  get messages(): readonly ChatMessage[] {
    return this.#session.messages;
  }

  get settings(): Readonly<ConversationSettings> {
    return this.#settings;
  }

  /** The calls that the user must answer, because their tools have no code. */
  get pendingToolCalls(): Session['pendingToolCalls'] {
    return this.#session.pendingToolCalls;
  }

  /** Sends a message or the results of tool calls. */
  stream(message: TurnInput, signal: AbortSignal): ReplyStream<StreamPart, Reply> {
    return this.#session.stream(message, { ...this.#settings.turn, signal });
  }

  /** The number of tokens of the conversation so far. */
  countTokens(): Promise<number> {
    const { systemPrompt, tools } = this.#settings;
    return this.#agent.countTokens(this.messages, definedOptions({ systemPrompt, tools }));
  }

  /** Continues with other messages. Their common beginning with the old ones is reused. */
  async replaceMessages(messages: readonly ChatMessage[]): Promise<void> {
    await this.#reopen(this.#settings, messages);
  }

  /** Continues with another system prompt or with other tools. */
  async change(settings: Partial<ConversationSettings>): Promise<void> {
    await this.#reopen({ ...this.#settings, ...settings }, this.messages);
  }

  /**
   * Removes the last message of the user and everything after it.
   *
   * @returns the removed message, or undefined if there is none
   */
  async undo(): Promise<string | undefined> {
    const last = this.messages.findLastIndex(({ role }) => role === 'user');
    if (last === -1) {
      return undefined;
    }
    const { content } = this.messages[last] as ChatMessage;
    await this.replaceMessages(this.messages.slice(0, last));
    return content;
  }

  /** A copy of the conversation. */
  async fork(): Promise<Conversation> {
    return new Conversation(this.#agent, this.#settings, await this.#session.fork());
  }

  /** Saves the conversation with its KV state. */
  save(path: string, signal: AbortSignal): Promise<void> {
    return this.#session.save(path, { state: true, signal });
  }

  /**
   * Continues a saved conversation instead of this one, with its system prompt, and with its tools if this conversation
   * has none.
   */
  async load(path: string): Promise<void> {
    const saved = await readSession(path);
    // The saved session may be this one, which must be closed to be restored. If that fails, its copy continues.
    const copy = await this.#session.fork();
    await this.#session.close();
    this.#session = copy;
    const { onToolCall, tools = saved.tools.filter(({ server }) => server === undefined) as Tool[] } = this.#settings;
    this.#session = await this.#agent.restoreSession(path, definedOptions({ tools, onToolCall }));
    this.#settings = { ...this.#settings, systemPrompt: saved.systemPrompt, tools };
    await copy.close();
  }

  close(): Promise<void> {
    return this.#session.close();
  }

  async #reopen(settings: ConversationSettings, messages: readonly ChatMessage[]): Promise<void> {
    // The old session is closed afterwards, so that the new one finds its KV state.
    const session = await this.#agent.createSession({ ...sessionOptions(settings), messages });
    await this.#session.close();
    this.#session = session;
    this.#settings = settings;
  }
}

function sessionOptions(
  { systemPrompt, tools, onToolCall }: ConversationSettings,
  signal?: AbortSignal,
): SessionOptions {
  return definedOptions({ systemPrompt, tools, onToolCall, signal });
}
