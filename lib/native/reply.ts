import { addon, type RawReplyParser, toJson, unlessAborted } from './addon.js';
import type { GrammarTrigger } from './grammar-trigger.js';

/** The format of a model's replies, which follows from its chat template: the grammar for sampling, and the parser of replies. */
export interface ReplyFormat {
  /** The name of the reply format in llama.cpp's `common`. */
  format: string;
  /** GBNF for tool calls or for JSON of a schema; empty if there is no grammar. Pass it and the next four to {@link SamplerOptions}. */
  grammar: string;
  /** Whether the grammar applies only after a trigger. */
  grammarLazy: boolean;
  /** The triggers of a lazy grammar. Samplers accept a pattern only as the object in this array. */
  grammarTriggers: GrammarTrigger[];
  /** Texts of control tokens that belong to the text of a reply: detokenize these tokens with `special`. */
  preservedTokens: string[];
  /** The opening of the assistant's turn. The grammar covers it. */
  generationPrompt: string;
  /** Texts that end a reply, in addition to the tokens that end generation. */
  additionalStops: string[];
  /** Whether replies have reasoning that can be separated from their text. */
  supportsThinking: boolean;
  /** The tag in front of reasoning; empty if there is none. */
  thinkingStartTag: string;
  /** The tags that can end reasoning. */
  thinkingEndTags: string[];
  /** Whether the model may write ids of its own for tool calls. */
  hasCallIds: boolean;
  /** For {@link Model.parseReply}. It works only in this thread, and until the model is closed. */
  parser: ReplyParser;
}

/** The parser of a reply format. It has no public members. */
export type ReplyParser = RawReplyParser;

/** A tool call in a reply. */
export interface ReplyToolCall {
  /** The id that the model wrote; empty if the format has no ids. */
  id: string;
  /** The name of the tool. */
  name: string;
  /** JSON text. In a partial reply it is the part so far, completed to valid JSON if possible. */
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
   * The length of these parts with their markup, in characters (UTF-16 units). Without `partial`, the rest of the text is an incomplete
   * call, incomplete markup, or text that does not follow the format.
   */
  length: number;
}

/** A reply to parse. */
export interface ParseRequest {
  /** The result of {@link Model.render} for the conversation. Only its `parser` is used. */
  rendered: Pick<ReplyFormat, 'parser'>;
  /** The text of the reply so far, without the token that ends generation. */
  text: string;
  /** The reply is not complete yet: text that may become a tool call is held back. @default false */
  partial?: boolean;
  /**
   * If the text does not follow the format, read its longest beginning that does, with complete calls only. `length` is the length of
   * that beginning.
   *
   * @default false: such a text is `REPLY_INVALID`
   */
  beginning?: boolean;
}

/** @internal */
export async function parseReply(request: ParseRequest, signal: AbortSignal | undefined): Promise<ParsedReply> {
  const { rendered, text, partial = false, beginning = false } = request ?? {};
  return unlessAborted(signal, (abort) => addon().parseReply(rendered?.parser, text, partial, beginning, abort));
}

/**
 * The parser of a format, for replies with the real names. The format was made with stand-ins for the names: `mark`, the index in
 * `names`, and an `e`.
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
 * GBNF for the JSON texts that a schema allows, for {@link SamplerOptions.grammar}. llama.cpp's converter supports types, properties,
 * items, enum, const, anyOf, oneOf, allOf, references into the schema itself, bounds, lengths, patterns, and the formats date, time,
 * date-time and uuid. It ignores other keywords.
 *
 * @param options.signal stops the conversion before it starts. If it fires later, the result is dropped
 * @throws HeadstartError `SCHEMA_INVALID` with the reason (also for references to other documents, and for schemas that no finite text
 *   fits), `JSON_TOO_DEEP` (more than 64 levels), `INVALID_ARGUMENT`, `ABORTED`.
 */
export async function jsonSchemaToGrammar(
  schema: object,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const json = toJson('schema', schema);
  return unlessAborted(options?.signal, (abort) => addon().jsonSchemaToGrammar(json, abort));
}
