import type { PromptPlace } from '../cache/cache-report.js';
import type { Model } from '../native/model.js';
import type { ContentOwner } from '../prompt/content-marks.js';
import type { ChatMessage } from '../prompt/messages.js';
import { ownerOfToken } from '../prompt/prompt-place.js';
import type { TemplateSource, TokenizedPrompt } from '../prompt/renderer.js';

/** A prompt, and the conversation that it shows. */
export interface PromptContents {
  prompt: TokenizedPrompt;
  source: TemplateSource;
  messages: readonly ChatMessage[];
  /**
   * For each of `messages`: its index in the caller's messages, which may also have system messages at the beginning.
   * @default the same index
   */
  indices?: readonly number[] | undefined;
}

/** How many tokens of text to show. */
const SHOWN_TOKENS = 8;

/** Describes the place of a token in a prompt. Renders nothing. */
export function placeInPrompt(model: Model, conversation: PromptContents, index: number): PromptPlace {
  const { prompt, source, messages } = conversation;
  const owner = ownerOfToken(model, prompt, index, source, messages);
  return { index, ...partOf(owner, conversation), text: textAt(model, prompt.tokens, index) };
}

/** Names an owner by what the caller knows: an index in `messages`, or the name of a tool. */
export function partOf(
  owner: ContentOwner | 'opening' | undefined,
  { source, indices }: Pick<PromptContents, 'source' | 'indices'>,
): Pick<PromptPlace, 'part' | 'message' | 'tool'> {
  if (owner === undefined || owner === 'opening') {
    return owner === undefined ? {} : { part: 'opening' };
  }
  const { part, index } = owner;
  switch (part) {
    case 'message': {
      const message = indices === undefined ? index : indices[index];
      return { part, ...(message !== undefined && { message }) };
    }
    case 'tool': {
      const tool = source.tools?.[index]?.name;
      return tool === undefined ? {} : { part, tool };
    }
    case 'system':
      return (indices?.[0] ?? 0) > 0 ? { part, message: 0 } : { part };
  }
}

/** The text of the token at `index` and of those after it. */
export function textAt(model: Model, tokens: Int32Array, index: number): string {
  return textOf(model, tokens.subarray(index, index + SHOWN_TOKENS));
}

/** The text of the tokens in front of `index`. */
export function textInFrontOf(model: Model, tokens: Int32Array, index: number): string {
  return textOf(model, tokens.subarray(Math.max(0, index - SHOWN_TOKENS), index));
}

function textOf(model: Model, tokens: Int32Array): string {
  const bytes = [...tokens].map((token) => model.tokenToBytes(token, { special: true }));
  return new TextDecoder().decode(Buffer.concat(bytes));
}
