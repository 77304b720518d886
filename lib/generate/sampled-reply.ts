import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { ReplyToolCall } from '../native/reply.js';
import type { ReplyValues } from './reply-reader.js';
import { toToolCall } from './tool-calls.js';

/** A reply as it was sampled. The type is JSON, so that a reply can be saved together with a KV state. */
export interface SampledReply {
  /**
   * The beginning of the reply's prompt, up to the last control token: its number of tokens, and their `TokenHash`. No
   * merge of tokens crosses a control token, so later prompts have a token border at this place.
   */
  after: { tokens: number; hash: number };
  /** The other tokens of the prompt, which usually are the end of the generation prompt. */
  opening: readonly number[];
  /** The sampled tokens, without the token that ended the reply. */
  tokens: readonly number[];
  /**
   * Whether a token that ends generation ended the reply. Otherwise a stop string, a limit or an abort ended it, and
   * only the tokens inside its reasoning and text may be used.
   */
  isWhole: boolean;
  values: ReplyValues;
  /** The options with which the renderer finds the reply's format. */
  format: {
    toolChoice: 'auto' | 'required' | 'none' | { name: string };
    parallelToolCalls: boolean;
    reasoning: boolean;
    /** As in `ReplyReader`. */
    isStructured: boolean;
  };
}

const TOKENS = z.array(z.int().min(0));

const SAMPLED_REPLY: z.ZodType<SampledReply> = z.object({
  after: z.object({ tokens: z.int().min(1), hash: z.int().min(0) }),
  opening: TOKENS,
  tokens: TOKENS.min(1),
  isWhole: z.boolean(),
  values: z.object({
    text: z.string(),
    reasoning: z.string(),
    toolCalls: z.array(z.object({ id: z.string(), name: z.string(), arguments: z.string() })),
  }),
  format: z.object({
    toolChoice: z.union([z.enum(['auto', 'required', 'none']), z.object({ name: z.string() })]),
    parallelToolCalls: z.boolean(),
    reasoning: z.boolean(),
    isStructured: z.boolean(),
  }),
});

/** Returns the reply if it has the form of a `SampledReply`, otherwise undefined. */
export function readSampledReply(json: unknown): SampledReply | undefined {
  const { success, data } = SAMPLED_REPLY.safeParse(json);
  return success ? data : undefined;
}

/**
 * Whether two replies have the same values. White space around text and reasoning does not count, because parsers, chat
 * templates and clients remove it. The order of arguments does not count either.
 */
export function haveSameValues(a: ReplyValues, b: ReplyValues): boolean {
  return (
    a.text.trim() === b.text.trim() &&
    a.reasoning.trim() === b.reasoning.trim() &&
    a.toolCalls.length === b.toolCalls.length &&
    a.toolCalls.every((call, index) => isSameCall(call, b.toolCalls[index] as ReplyToolCall))
  );
}

/**
 * Whether the text of `beginning` is a part of the text of a reply that was cut off. A client that aborted the reply may
 * have received less than was sampled. Calls do not count, because the tokens of a cut reply are used only in front of
 * its calls.
 */
export function isBeginningOf(reply: ReplyValues, beginning: ReplyValues): boolean {
  return (
    beginning.reasoning.trim() === reply.reasoning.trim() && reply.text.trimStart().startsWith(beginning.text.trim())
  );
}

/** Ids must agree too: the result of a call names the call by its id. */
function isSameCall(a: ReplyToolCall, b: ReplyToolCall): boolean {
  return a.id === b.id && a.name === b.name && isDeepStrictEqual(inputOf(a), inputOf(b));
}

function inputOf(call: ReplyToolCall): unknown {
  return toToolCall(call.id, call).input;
}
