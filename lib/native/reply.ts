import { addon, type RawReplyParser, toJson, unlessAborted } from './addon.js';
import type { GrammarTrigger } from './grammar-trigger.js';

/**
 * The format of a model's replies, as its chat template defines it: a grammar for the sampler and a parser of replies.
 */
export interface ReplyFormat {
  /** The name of the reply format in llama.cpp's `common`. */
  format: string;
  /**
   * The grammar (GBNF) of tool calls, or of the JSON that a schema allows. Empty if there is no grammar. Pass this
   * field and the next four in {@link SamplerOptions}.
   */
  grammar: string;
  /** Whether the grammar applies only after a trigger. */
  grammarLazy: boolean;
  /** The triggers of a lazy grammar. Samplers accept the patterns in this array, but no copies of them. */
  grammarTriggers: GrammarTrigger[];
  /** The texts of control tokens that belong to a reply's text. Detokenize these tokens with `special`. */
  preservedTokens: string[];
  /** The opening of the assistant's turn. The grammar covers it. */
  generationPrompt: string;
  /** Texts that end a reply, in addition to the tokens that end generation. */
  additionalStops: string[];
  /** Whether replies have reasoning that can be separated from their text. */
  supportsThinking: boolean;
  /** The tag in front of reasoning. Empty if the format has none. */
  thinkingStartTag: string;
  /** The tags that can end reasoning. */
  thinkingEndTags: string[];
  /** Whether the model may write an id for each tool call. */
  hasCallIds: boolean;
  /**
   * The parser for {@link Model.parseReply}. The parser works only in this thread, and only until the model is closed.
   */
  parser: ReplyParser;
}

/** The parser of a reply format, without public members. */
export type ReplyParser = RawReplyParser;

/** A tool call in a reply. */
export interface ReplyToolCall {
  /** The id that the model wrote; empty if the format has no ids. */
  id: string;
  /** The name of the tool. */
  name: string;
  /** The arguments as JSON text. In a partial reply, the text so far, completed to valid JSON if possible. */
  arguments: string;
}

/** The parts of a reply. */
export interface ParsedReply {
  /** The text, without markup. */
  content: string;
  /** The reasoning in front of the text; empty if the format has none. */
  reasoning: string;
  /** The tool calls in their order. */
  toolCalls: ReplyToolCall[];
  /**
   * The length of the parsed text with its markup, in UTF-16 code units. Without `partial`, the rest of the text is an
   * incomplete call, incomplete markup, or text that does not follow the format.
   */
  length: number;
}

/** A reply to parse. */
export interface ParseRequest {
  /** The result of {@link Model.render} for the conversation. Only its `parser` is used. */
  rendered: Pick<ReplyFormat, 'parser'>;
  /** The text of the reply so far, without the token that ends generation. */
  text: string;
  /** Whether more text will follow. If true, the parser holds back text that may become a tool call. @default false */
  partial?: boolean;
  /**
   * If the text does not follow the format, parse only its longest beginning that does. The result then has only
   * complete calls, and its `length` is the length of that beginning. With `false`, such a text throws `REPLY_INVALID`.
   * @default false
   */
  beginning?: boolean;
}

/** @internal */
export async function parseReply(request: ParseRequest, signal: AbortSignal | undefined): Promise<ParsedReply> {
  const { rendered, text, partial = false, beginning = false } = request ?? {};
  return unlessAborted(signal, (abort) => addon().parseReply(rendered?.parser, text, partial, beginning, abort));
}

/**
 * Returns a parser for replies with the real names. The format has stand-ins for the names: `mark`, followed by the
 * index in `names`, followed by an `e`.
 *
 * @internal
 */
export async function replyWithNames(
  { parser }: Pick<ReplyFormat, 'parser'>,
  { mark, names }: { mark: string; names: readonly string[] },
): Promise<ReplyParser> {
  return addon().nameReply(parser, mark, names);
}

/**
 * Converts a JSON Schema to a grammar (GBNF) for {@link SamplerOptions.grammar}. The grammar allows the JSON texts that
 * the schema allows. llama.cpp's converter supports types, properties, items, enum, const, anyOf, oneOf, allOf,
 * references into the schema itself, bounds, lengths, patterns, and the formats date, time, date-time and uuid. It
 * ignores other keywords.
 *
 * @param options.signal prevents the conversion if the signal fires before the conversion starts. If the signal fires
 *   later, the result is dropped
 * @throws HeadstartError `SCHEMA_INVALID` with the reason (for example, the schema refers to another document, or no
 *   finite text matches it), `JSON_TOO_DEEP` (more than 64 levels), `INVALID_ARGUMENT`, `ABORTED`.
 */
export async function jsonSchemaToGrammar(
  schema: object,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const json = toJson('schema', schema);
  return unlessAborted(options?.signal, (abort) => addon().jsonSchemaToGrammar(json, abort));
}
