// Finds the positions in the text of a prompt at which one message ends and the next one begins.
import { unlessRefused } from './chat-template.js';
import type { LocatedMark } from './content-marks.js';
import type { LocatedConversation } from './located-conversation.js';
import type { Renderer } from './renderer.js';
import { historyOf, type TurnMarkup } from './turn-markup.js';

/** A position between two messages, with the contents around it. All positions are in UTF-16 code units. */
export interface MessageBoundary {
  /** The end of the last content in front of the boundary. */
  after: number;
  at: number;
  /** The start of the first content after the boundary. */
  before: number;
}

/** The position of a boundary in the text of its gap; undefined if it is unknown. */
type Offset = number | undefined;

/** Two messages and the text between their contents. */
interface Gap {
  /** The index of the message after the gap; the number of messages for the gap at the end. */
  next: number;
  from: LocatedMark | undefined;
  to: LocatedMark | undefined;
  start: number;
  text: string;
}

/**
 * Finds the boundary in front of each message, and after the last one, in two ways. First, it renders the conversation
 * up to the boundary: the text after the last content is the end of the message in front of the boundary. Second, it
 * looks for the text with which the chat template begins the messages of users. The boundary is unknown if the two ways
 * disagree, or if neither can be used.
 */
export class MessageBoundaries {
  readonly #renderer: Renderer;
  readonly #conversation: LocatedConversation;
  readonly #markup: TurnMarkup;
  /** Results of {@link #findEnd} by gap, because most gaps of a long conversation are equal. */
  readonly #ends = new Map<string, Promise<Offset | 'refused'>>();

  constructor(renderer: Renderer, conversation: LocatedConversation, markup: TurnMarkup) {
    this.#renderer = renderer;
    this.#conversation = conversation;
    this.#markup = markup;
  }

  /** @returns the boundary in front of each message, and then the boundary after the last message */
  async find(): Promise<(MessageBoundary | undefined)[]> {
    const boundaries: (MessageBoundary | undefined)[] = [];
    for (let next = 0; next <= this.#conversation.messages.length; next++) {
      const gap = this.#gap(next);
      const offset = gap && (await this.#offset(gap));
      boundaries.push(gap && offset !== undefined ? boundaryIn(gap, offset) : undefined);
    }
    return boundaries;
  }

  /** The gap in front of a message; undefined if the contents are not in the order of the messages. */
  #gap(next: number): Gap | undefined {
    const { located, text } = this.#conversation;
    const isMessage = ({ owner }: LocatedMark) => owner.part === 'message';
    const to = located.find((mark) => isMessage(mark) && mark.owner.index >= next);
    const isInFront = (mark: LocatedMark) =>
      isMessage(mark) ? mark.owner.index < next : next === 0 && mark.at <= (to?.at ?? text.length);
    const from = located.filter(isInFront).at(-1);
    const start = from?.at ?? 0;
    const end = to?.at ?? text.length;
    // A system prompt has marks at both ends, but a tool only at its start: its end is in the gap.
    const isWhole =
      from?.owner.part === 'tool' || ((from?.side ?? 'end') === 'end' && (to?.side ?? 'start') === 'start');
    return start <= end && isWhole ? { next, from, to, start, text: text.slice(start, end) } : undefined;
  }

  async #offset(gap: Gap): Promise<Offset> {
    const { messages, text, opening } = this.#conversation;
    if (gap.next === messages.length) {
      const offset = text.length - opening.length - gap.start;
      return this.#canEndAfter(gap.next - 1) && offset >= 0 ? offset : undefined;
    }
    const byStart = this.#offsetByStart(gap);
    const byEnd = await this.#offsetByEnd(gap);
    if (byEnd === 'refused') {
      return byStart;
    }
    return byStart === undefined || byStart === byEnd ? byEnd : undefined;
  }

  /** Whether a conversation that ends with this message shows the end of the message. */
  #canEndAfter(index: number): boolean {
    const role = this.#conversation.messages[index]?.role;
    return role === 'assistant' ? this.#markup.closesLastReply : role !== undefined && this.#markup.reportsOpening;
  }

  #offsetByStart({ next, to, text }: Gap): Offset {
    const { userStart } = this.#markup;
    const isUser = this.#conversation.messages[next]?.role === 'user' && to?.owner.index === next;
    if (!isUser || userStart === undefined) {
      return undefined;
    }
    const start = [userStart + to.space, userStart].find((each) => text.endsWith(each));
    return start === undefined ? undefined : text.length - start.length;
  }

  /** The result is `refused` if no shorter conversation shows the end of the message. */
  #offsetByEnd(gap: Gap): Promise<Offset | 'refused'> {
    const { messages } = this.#conversation;
    if (!this.#canEndAfter(gap.next - 1)) {
      return Promise.resolve('refused');
    }
    const roles = [messages[gap.next - 1]?.role, messages[gap.next]?.role];
    const own = [gap.from?.owner.index === gap.next - 1, gap.to?.owner.index === gap.next];
    const key = JSON.stringify([...roles, ...own, gap.text]);
    let end = this.#ends.get(key);
    if (end === undefined) {
      end = this.#findEnd(gap);
      this.#ends.set(key, end);
    }
    return end;
  }

  /** Renders the conversation up to this gap. */
  async #findEnd({ next, from, text }: Gap): Promise<Offset | 'refused'> {
    const { source, markedMessages, marks, options } = this.#conversation;
    const prompt = await unlessRefused(this.#renderer.text(source, markedMessages.slice(0, next), options));
    if (prompt === undefined) {
      return 'refused';
    }
    const history = marks.read(historyOf(prompt));
    const last = history.marks.at(-1);
    const end = history.text.slice(last?.at ?? 0);
    return last?.id === from?.id && text.startsWith(end) ? end.length : undefined;
  }
}

function boundaryIn({ start, text, from, to }: Gap, offset: number): MessageBoundary {
  const after = from !== undefined && text.startsWith(from.space) ? from.space.length : 0;
  const before = to !== undefined && text.endsWith(to.space) ? to.space.length : 0;
  return { after: start + after, at: start + offset, before: start + text.length - before };
}
