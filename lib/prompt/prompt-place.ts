// Finds the message or tool that has a token of a prompt. The search renders nothing, so that it is cheap enough for
// every reply.
import type { Model } from '../native/model.js';
import type { ContentOwner } from './content-marks.js';
import { findMessages, findSource, type LocatedContent, type TextRange } from './content-search.js';
import type { ChatMessage } from './messages.js';
import type { TemplateSource, TokenizedPrompt } from './renderer.js';

/**
 * The message, tool or system prompt that has a token. The markup between two messages belongs to the second one,
 * except its first character.
 *
 * @returns undefined if the place is not certain, for example because the chat template rewrites the content
 */
export function ownerOfToken(
  model: Model,
  prompt: TokenizedPrompt,
  index: number,
  source: TemplateSource,
  messages: readonly ChatMessage[],
): ContentOwner | 'opening' | undefined {
  const range = index < prompt.tokens.length ? rangeOfToken(model, prompt, index) : undefined;
  if (range === undefined) {
    return undefined;
  }
  const { text, opening } = prompt;
  if (opening !== '' && range.start >= text.length - opening.length) {
    return 'opening';
  }
  const ofMessages = findMessages(text, messages);
  const next = indexAfter(ofMessages, range);
  const before = ofMessages[next - 1];
  if (before !== undefined && range.start < before.end) {
    return before.owner;
  }
  const gap = { start: before?.end ?? 0, end: ofMessages[next]?.start ?? text.length };
  const ofSource = findSource(text, gap, source);
  const contents = [...ofMessages.slice(0, next), ...ofSource, ...ofMessages.slice(next)];
  return ownerInGap(text, contents, range, source.tools?.length ?? 0);
}

/** The index of the first content after a token. */
function indexAfter(contents: readonly LocatedContent[], { end }: TextRange): number {
  const index = contents.findIndex(({ start }) => start >= end);
  return index === -1 ? contents.length : index;
}

/** The owner of a token between two messages, or of the system prompt or a tool between them. */
function ownerInGap(
  text: string,
  contents: readonly LocatedContent[],
  range: TextRange,
  tools: number,
): ContentOwner | undefined {
  const next = indexAfter(contents, range);
  const [before, after] = [contents[next - 1], contents[next]];
  if (before !== undefined && (range.start < before.end || isSame(before.owner, after?.owner))) {
    return before.owner;
  }
  const lastOf = (part: ContentOwner['part']) =>
    contents.slice(0, next).findLast(({ owner }) => owner.part === part)?.owner.index ?? -1;
  const isAfterMessage = lastOf('message') >= 0;
  if (before !== undefined && range.start < before.end + endIn(text.slice(before.end, after?.start), before.owner)) {
    // Some chat templates write the system prompt into the turn of the last user, without markup in front of the text.
    return before.owner.part === 'system' && isAfterMessage ? undefined : before.owner;
  }
  // Markup in front of a message may also belong to tools that were not found, and markup in front of a tool to messages.
  const isCertain = after?.owner.part === 'message' ? isAfterMessage || lastOf('tool') === tools - 1 : !isAfterMessage;
  return after !== undefined && isCertain ? ownerInFrontOf(after.owner, lastOf(after.owner.part)) : undefined;
}

/**
 * The owner of the markup in front of a content.
 *
 * @param last the index of the last message or tool in front of this markup
 */
function ownerInFrontOf(after: ContentOwner, last: number): ContentOwner | undefined {
  const skipped = after.index - last - 1;
  // If there is exactly one message without a content in between, most of the markup belongs to this message.
  return skipped <= 1 ? { ...after, index: after.index - skipped } : undefined;
}

/**
 * How much of the text after a content still belongs to the owner of the content: the definition of a tool ends at a
 * brace, and a message ends with the first markup after it.
 */
function endIn(gap: string, { part }: ContentOwner): number {
  return part === 'tool' ? gap.lastIndexOf('}') + 1 : gap.length - gap.trimStart().length + 1;
}

function isSame(a: ContentOwner, b: ContentOwner | undefined): boolean {
  return a.part === b?.part && a.index === b.index;
}

const SPACE = 0x20;

/**
 * The text of one token. Walks to the token from the nearer end of the prompt.
 *
 * @returns undefined if the text of the tokens is not the text of the prompt, as with a tokenizer that changes case
 */
function rangeOfToken(model: Model, { tokens, text }: TokenizedPrompt, index: number): TextRange | undefined {
  const bytes = Buffer.from(text);
  const walks = [forward, backward];
  const [first, second] = (index < tokens.length / 2 ? walks : walks.reverse()) as [typeof forward, typeof forward];
  const found = first(model, tokens, bytes, index) ?? second(model, tokens, bytes, index);
  const unitsIn = (length: number) => bytes.toString('utf8', 0, length).length;
  return found && { start: unitsIn(found.start), end: unitsIn(found.end) };
}

function forward(model: Model, tokens: Int32Array, text: Buffer, index: number): TextRange | undefined {
  let start = 0;
  for (let at = 0; ; at++) {
    const token = bytesOf(model, tokens, at).find((bytes) => isAt(text, bytes, start));
    if (token === undefined || at === index) {
      return token && { start, end: start + token.length };
    }
    start += token.length;
  }
}

function backward(model: Model, tokens: Int32Array, text: Buffer, index: number): TextRange | undefined {
  let end = text.length;
  for (let at = tokens.length - 1; ; at--) {
    const to = end;
    const token = bytesOf(model, tokens, at).find((bytes) => isAt(text, bytes, to - bytes.length));
    if (token === undefined || at === index) {
      return token && { start: end - token.length, end };
    }
    end -= token.length;
  }
}

function isAt(text: Buffer, bytes: Uint8Array, start: number): boolean {
  const end = start + bytes.length;
  return start >= 0 && end <= text.length && text.compare(bytes, 0, bytes.length, start, end) === 0;
}

/** SentencePiece puts a space in front of a text, and after a control token. The prompt may not have this space. */
function bytesOf(model: Model, tokens: Int32Array, index: number): Uint8Array[] {
  const { bos, addsBos } = model.info.vocabulary;
  const token = tokens[index] as number;
  if (index === 0 && addsBos && token === bos) {
    return [new Uint8Array()];
  }
  const bytes = model.tokenToBytes(token, { special: true });
  return bytes[0] === SPACE ? [bytes, bytes.subarray(1)] : [bytes];
}
