// Reads messages and commands of the user one after another, and shows the replies.
import type { AgentServer } from '../../agent/agent-server.js';
import type { TurnInput } from '../../chat/conversation.js';
import { HeadstartError } from '../../errors.js';
import type { FinishPart } from '../../generate/stream-parts.js';
import type { ToolMessage } from '../../prompt/messages.js';
import { withFiles } from '../inputs/attachments.js';
import type { Conversation } from './conversation.js';
import type { LineReader } from './line-reader.js';
import { oneLine, ReplyPrinter, type ReplyStyle } from './reply-printer.js';
import { isCommand, runCommand } from './slash-commands.js';
import { statusLine } from './status-line.js';
import type { Approval } from './tool-approval.js';

export interface ChatParts {
  agent: AgentServer;
  conversation: Conversation;
  reader: LineReader;
  style: ReplyStyle;
  /** The directory of relative paths. */
  directory: string;
  /**
   * Whether a person types the messages. Anybody may have written the lines of a pipe, so these lines cannot run
   * commands or attach files.
   */
  isPerson: boolean;
  /** Reports a failed message or command. */
  fail(message: string): void;
}

const PROMPT = '> ';
const CONTINUED_PROMPT = '… ';
/** Begins and ends a message of several lines. */
const QUOTES = '"""';

/** A chat in a terminal, or with messages from a pipe. */
export class ChatLoop {
  readonly parts: ChatParts;
  /** The conversations of the chat: `/fork` adds copies. */
  readonly branches: Conversation[];
  /** The index of the conversation that the user sees. */
  current = 0;
  /** The end of the last turn. */
  lastTurn: FinishPart | undefined;
  #stopTurn: (() => void) | undefined;
  #interrupts = 0;
  #hasLeft = false;

  constructor(parts: ChatParts) {
    this.parts = parts;
    this.branches = [parts.conversation];
    parts.reader.onInterrupt = () => this.interrupt();
  }

  get conversation(): Conversation {
    return this.branches[this.current] as Conversation;
  }

  /** Prints a line that is not part of a reply. */
  print(text: string): void {
    this.parts.style.output.write(`${text}\n`);
  }

  /** Ends the chat after the current command. */
  leave(): void {
    this.#hasLeft = true;
  }

  /**
   * Runs until the user leaves.
   *
   * @param signal aborts a reply in progress and ends the chat
   */
  async run(signal: AbortSignal): Promise<void> {
    while (!this.#hasLeft && !signal.aborted) {
      const text = await this.#readMessage();
      if (text === undefined) {
        return;
      }
      if (text.trim() !== '') {
        await this.#handle(text, signal);
      }
    }
  }

  async #handle(text: string, signal: AbortSignal): Promise<void> {
    try {
      if (!this.parts.isPerson) {
        await this.#converse(text.trim(), signal);
      } else if (isCommand(text)) {
        await runCommand(this, text, signal);
      } else {
        const { text: message, missing } = await withFiles(text.trim(), this.parts.directory);
        this.#warnOfMissing(missing);
        await this.#converse(message, signal);
      }
    } catch (error) {
      // A mistake of the user must not end the chat.
      if (!HeadstartError.isInstance(error) || ['ABORTED', 'CLOSED'].includes(error.code)) {
        throw error;
      }
      this.parts.fail(error.message);
    }
  }

  #warnOfMissing(missing: readonly string[]): void {
    for (const path of missing) {
      this.print(this.parts.style.dim(`There is no file "${path}", so @${path} was sent as it is.`));
    }
  }

  /** Sends a message, and then the results of the calls that the user must answer. */
  async #converse(message: string, signal: AbortSignal): Promise<void> {
    try {
      let input: TurnInput | undefined = message;
      while (input !== undefined) {
        const finished: boolean = await this.#turn(input, message, signal);
        input = finished ? await this.#results() : undefined;
      }
    } finally {
      // The next message cannot follow calls without results.
      if (this.conversation.pendingToolCalls.length > 0 && !signal.aborted) {
        await this.conversation.undo();
      }
    }
  }

  /** @returns whether the turn reached its end */
  async #turn(input: TurnInput, message: string, signal: AbortSignal): Promise<boolean> {
    const stop = new AbortController();
    this.#stopTurn = () => stop.abort();
    const printer = new ReplyPrinter(this.parts.style);
    try {
      for await (const part of this.conversation.stream(input, AbortSignal.any([signal, stop.signal]))) {
        printer.print(part);
        if (part.type === 'finish') {
          this.lastTurn = part;
        }
      }
      printer.end();
      await this.#showStatus();
      return true;
    } catch (error) {
      printer.end();
      if (signal.aborted || !stop.signal.aborted) {
        throw error;
      }
      await this.#keepStopped(input === message ? message : undefined, printer.text);
      return false;
    } finally {
      this.#stopTurn = undefined;
    }
  }

  /**
   * Keeps the text that the model wrote before the user stopped it. A stopped turn does not change the session, so this
   * method adds the message and the text.
   *
   * @param message undefined if the user sent the results of calls
   */
  async #keepStopped(message: string | undefined, text: string | undefined): Promise<void> {
    const reply = text?.trim() ?? '';
    if (message === undefined || reply === '') {
      this.print('Stopped. The conversation does not contain this message.');
      return;
    }
    await this.conversation.replaceMessages([
      ...this.conversation.messages,
      { role: 'user', content: message },
      { role: 'assistant', content: reply },
    ]);
    this.print('Stopped. The conversation contains the reply up to here.');
  }

  async #showStatus(): Promise<void> {
    const { agent, style } = this.parts;
    if (style.notes !== undefined && this.lastTurn !== undefined) {
      const line = await statusLine(this.lastTurn, this.conversation, agent.contextSize);
      style.notes.write(`${style.dim(line)}\n`);
    }
  }

  /**
   * Asks for the results of calls whose tools have no code.
   *
   * @throws HeadstartError `INVALID_ARGUMENT` if nobody can answer.
   */
  async #results(): Promise<TurnInput | undefined> {
    const results: ToolMessage[] = [];
    for (const { toolCallId, toolName, input } of this.conversation.pendingToolCalls) {
      if (!this.parts.isPerson) {
        throw new HeadstartError('INVALID_ARGUMENT', `The model called ${toolName}, which has no code here.`);
      }
      const content = await this.parts.reader.ask(`Result of ${toolName} ${oneLine(input)}: `);
      if (content === undefined) {
        return undefined; // the user leaves
      }
      results.push({ role: 'tool', toolCallId, toolName, content });
    }
    return results.length === 0 ? undefined : results;
  }

  /** Asks whether a tool may run. If nobody can answer, it may not. */
  async approve(question: string): Promise<Approval> {
    if (!this.parts.isPerson) {
      this.parts.fail(`${question} Nobody can answer here, so the call is refused. Pass --yes to run tools.`);
      return 'no';
    }
    const answer = await this.parts.reader.ask(`${question} [y]es, [n]o, [a]lways: `);
    const letter = answer?.trim().toLowerCase()[0];
    return letter === 'y' ? 'yes' : letter === 'a' ? 'always' : 'no';
  }

  /** Reads a message of one line, or of several lines between `"""`. */
  async #readMessage(): Promise<string | undefined> {
    const { reader } = this.parts;
    const first = await reader.read(PROMPT);
    this.#interrupts = 0;
    if (first === undefined || !first.trimStart().startsWith(QUOTES)) {
      return first;
    }
    let text = first.trimStart().slice(QUOTES.length);
    while (!text.trimEnd().endsWith(QUOTES)) {
      const line = await reader.read(CONTINUED_PROMPT);
      if (line === undefined) {
        return text;
      }
      text += `\n${line}`;
    }
    return text.trimEnd().slice(0, -QUOTES.length);
  }

  /** Handles Ctrl-C: the first one stops the reply, and a second one in a row ends the chat. */
  interrupt(): void {
    const { reader } = this.parts;
    if (this.#stopTurn !== undefined) {
      this.#interrupts = 1;
      this.#stopTurn();
      reader.cancel(); // a question about a tool
    } else if (reader.typed !== '') {
      this.#interrupts = 0;
      reader.clear();
    } else if (this.#interrupts > 0) {
      this.leave();
      reader.cancel();
    } else {
      this.#interrupts = 1;
      this.print('\nPress Ctrl-C again to leave.');
      reader.show();
    }
  }
}
