// Finds which tokens of a prompt belong to which message and tool. The search renders the conversation several times,
// so it is used only on request, never for an ordinary turn.
import type { Model } from '../native/model.js';
import { remembered } from '../remembered.js';
import { unlessRefused } from './chat-template.js';
import type { LocatedMark } from './content-marks.js';
import { toolsInHead } from './deferred-tools.js';
import { type LocatedConversation, locateContents } from './located-conversation.js';
import { MessageBoundaries, type MessageBoundary } from './message-boundaries.js';
import type { ChatMessage } from './messages.js';
import type { RenderedText, Renderer, ReplyOptions, TemplateSource, TextOptions } from './renderer.js';
import { TokenPositions } from './token-positions.js';
import { findToolRanges, type TextRange } from './tool-ranges.js';
import { findTurnMarkup, type TurnMarkup } from './turn-markup.js';

/** A range of token positions. */
export interface Span {
  /** The position of the first token. */
  from: number;
  /** The position after the last token. */
  to: number;
}

/**
 * The spans of a prompt. A span is undefined if it is unknown, for example because
 *
 * - the chat template leaves out the message, or writes it in several places or in another order;
 * - the chat template changes the content, or merges it with another message;
 * - the text at the end of a message differs between the last message and earlier ones, and no other conversation
 *   shows the beginning of the next message;
 * - a message shares its turn with the system prompt or with tools;
 * - two messages have parts in one token, or a change of one message could change tokens of the other message.
 */
export interface PromptSpans {
  /** The text of the system prompt, without the markup of its turn. */
  system: Span | undefined;
  /**
   * Each tool from its name or description to that of the next tool. Known spans are ascending and disjoint. The span of
   * a deferred tool is unknown.
   */
  tools: (Span | undefined)[];
  /** Each message with the markup of its turn. Known spans are ascending and disjoint. */
  messages: (Span | undefined)[];
  /** The beginning of the reply at the end of the prompt; empty if the chat template writes none. */
  generationPrompt: Span | undefined;
}

/** Finds spans in the prompts of one renderer. */
export class SpanFinder {
  readonly #model: Model;
  readonly #renderer: Renderer;
  /** The turn markup, by the options on which the markup depends. */
  readonly #markup = new Map<string, Promise<TurnMarkup>>();

  constructor(model: Model, renderer: Renderer) {
    this.#model = model;
    this.#renderer = renderer;
  }

  /**
   * Finds the spans of the prompt that {@link Renderer.prompt} returns for these arguments. The number of renders
   * depends on how many kinds of turns the conversation has. The number is at most linear in the number of messages.
   *
   * @throws HeadstartError as {@link Renderer.prompt}.
   */
  async find(
    { systemPrompt, tools = [] }: TemplateSource,
    messages: readonly ChatMessage[],
    options: ReplyOptions = {},
  ): Promise<PromptSpans> {
    const inHead = toolsInHead(tools);
    const source = { systemPrompt, tools: [...inHead, ...tools.filter(({ deferred }) => deferred)] };
    const spans = await this.#find(source, messages, options);
    return { ...spans, tools: tools.map((tool) => spans.tools[inHead.indexOf(tool)]) };
  }

  /** @param source the tools that are not deferred come first. Only these have spans. */
  async #find(source: TemplateSource, messages: readonly ChatMessage[], options: ReplyOptions): Promise<PromptSpans> {
    const prompt = await this.#renderer.tokens(source, messages, options);
    const positions = TokenPositions.of(this.#model, prompt);
    if (positions === undefined) {
      const unknown = messages.map(() => undefined);
      return { system: undefined, tools: [], messages: unknown, generationPrompt: undefined };
    }
    const textOptions = await this.#textOptions(prompt, source, messages, options);
    const conversation = await locateContents(this.#renderer, prompt, source, messages, textOptions);
    const markup = await this.#turnMarkup(textOptions);
    const boundaries = await new MessageBoundaries(this.#renderer, conversation, markup).find();
    const cuts = boundaries.map((boundary) => boundary && positions.cut(boundary));
    const messageSpans = messages.map((_, index) =>
      isWhole(conversation, index, boundaries) ? spanBetween(cuts[index], cuts[index + 1]) : undefined,
    );
    const ranges = await findToolRanges(this.#renderer, conversation);
    const toolSpans = ranges === undefined ? [] : spansOfTools(ranges, positions);
    const last = cuts.at(-1);
    return {
      system: inFrontOf(messageSpans, systemSpan(conversation.located, positions)),
      tools: toolSpans.map((span) => inFrontOf(messageSpans, span)),
      messages: messageSpans,
      generationPrompt: last === undefined ? undefined : { from: last, to: prompt.tokens.length },
    };
  }

  /** Chooses quick renders (`textOnly`) if a quick render returns the same text for this prompt. */
  async #textOptions(
    prompt: RenderedText,
    source: TemplateSource,
    messages: readonly ChatMessage[],
    options: ReplyOptions,
  ): Promise<TextOptions> {
    const quick = await unlessRefused(this.#renderer.text(source, messages, { ...options, textOnly: true }));
    return { ...options, textOnly: quick?.text === prompt.text && quick.opening === prompt.opening };
  }

  #turnMarkup({ reasoning, textOnly }: TextOptions): Promise<TurnMarkup> {
    const key = JSON.stringify([reasoning, textOnly]);
    return remembered(this.#markup, key, () => {
      const { bos } = this.#model.info.vocabulary;
      const text = bos === null ? '' : new TextDecoder().decode(this.#model.tokenToBytes(bos, { special: true }));
      return findTurnMarkup(this.#renderer, { reasoning, textOnly }, text);
    });
  }
}

function systemSpan(located: readonly LocatedMark[], positions: TokenPositions): Span | undefined {
  const indices = located.flatMap(({ owner }, index) => (owner.part === 'system' ? [index] : []));
  const [first, last] = [indices[0], indices.at(-1)];
  // The system prompt must be in one piece.
  if (first === undefined || last === undefined || last - first + 1 !== indices.length) {
    return undefined;
  }
  const [start, end] = [located[first], located[last]];
  if (start?.side !== 'start' || end?.side !== 'end') {
    return undefined;
  }
  return positions.widened(positions.tokenAt(start.at), positions.tokenAt(end.at - 1) + 1);
}

/** Whether the text between two boundaries has the whole content of a message, and no other content. */
function isWhole(
  { messages, located }: LocatedConversation,
  index: number,
  boundaries: readonly (MessageBoundary | undefined)[],
): boolean {
  const [start, end] = [boundaries[index], boundaries[index + 1]];
  if (start === undefined || end === undefined) {
    return false;
  }
  const isOwn = ({ owner }: LocatedMark) => owner.part === 'message' && owner.index === index;
  const hasOther = located.some((mark) => !isOwn(mark) && mark.at > start.at && mark.at < end.at);
  const content = located.filter((mark) => isOwn(mark) && mark.isContent);
  const isShown = content[0]?.side === 'start' && content.at(-1)?.side === 'end';
  return !hasOther && (isShown || messages[index]?.content.trim() === '');
}

/** A tool ends where the next one begins. */
function spansOfTools(ranges: readonly TextRange[], positions: TokenPositions): (Span | undefined)[] {
  const widened = ranges.map(({ start, end }) => positions.widened(positions.tokenAt(start), positions.tokenAt(end)));
  return widened.map(({ from, to }, index) => spanBetween(from, widened[index + 1]?.from ?? to));
}

/** Ends a widened span in front of the next message. */
function inFrontOf(messages: readonly (Span | undefined)[], span: Span | undefined): Span | undefined {
  const next = span && messages.find((message) => message !== undefined && message.from > span.from);
  return span && spanBetween(span.from, Math.min(span.to, next?.from ?? span.to));
}

function spanBetween(from: number | undefined, to: number | undefined): Span | undefined {
  return from !== undefined && to !== undefined && from < to ? { from, to } : undefined;
}
