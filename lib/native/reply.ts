import { addon, type RawReplyParser, toJson, unlessAborted } from './addon.js';
import type { GrammarTrigger } from './grammar-trigger.js';

/** How a model replies under its chat template: what sampling needs to keep it to that, and what reads the reply. */
export interface ReplyFormat {
  /** The name of the reply format that llama.cpp's `common` will parse. */
  format: string;
  /** GBNF for tool calls or the JSON schema asked for; empty where nothing is to be forced. For {@link SamplerOptions}, as the next four. */
  grammar: string;
  /** Whether the grammar waits for a trigger. */
  grammarLazy: boolean;
  /** What the grammar waits for. Samplers accept a pattern only as the object in this array. */
  grammarTriggers: GrammarTrigger[];
  /** Texts of control tokens that belong to the reply's text: detokenise with `special` where they occur. */
  preservedTokens: string[];
  /** The opening of the assistant's turn, which the grammar covers. */
  generationPrompt: string;
  /** Texts that end the reply, besides the tokens that end generation. */
  additionalStops: string[];
  /** Whether the chat template knows reasoning, and how that is set apart. */
  supportsThinking: boolean;
  /** What reasoning begins with; empty where it has no tag. */
  thinkingStartTag: string;
  /** What reasoning may end with. */
  thinkingEndTags: string[];
  /** Whether the model may write ids of its own for tool calls. */
  hasCallIds: boolean;
  /** For {@link Model.parseReply}. Good in this thread only, and until the model is closed. */
  parser: ReplyParser;
}

/** Opaque. */
export type ReplyParser = RawReplyParser;

/** A tool call in a reply. */
export interface ReplyToolCall {
  /** As the model wrote it; empty where the format has none. */
  id: string;
  /** The tool's. */
  name: string;
  /** JSON text; of a partial reply what is there of it, closed where that can be done. */
  arguments: string;
}

/** A reply, taken apart. */
export interface ParsedReply {
  /** The text, without markup. */
  content: string;
  /** What was thought before; empty where the format has none. */
  reasoning: string;
  /** In their order. */
  toolCalls: ReplyToolCall[];
  /**
   * How much of the text these parts and their markup are, in characters (UTF-16 units). Without `partial`, what follows is
   * a call that is not whole, something that only began like markup, or text that is not in the format.
   */
  length: number;
}

/** A reply to be taken apart. */
export interface ParseRequest {
  /** What {@link Model.render} returned for the conversation; of it only `parser` is used. */
  rendered: Pick<ReplyFormat, 'parser'>;
  /** The reply so far, without the token that ends generation. */
  text: string;
  /** More is to come: what may still become a tool call is held back. @default false */
  partial?: boolean;
  /**
   * Read a text that is not in the format as far as it is: whole calls only. How far that is, `length` says.
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
 * The parser of a format, for replies with real names in place of the stand-ins that it was made with: `mark`, an index in `names` and
 * an `e`.
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
 * GBNF for the JSON texts that a schema allows, for {@link SamplerOptions.grammar}. Of JSON Schema, what llama.cpp's
 * converter knows: types, properties, items, enum, const, anyOf, oneOf, allOf, references into the schema itself, bounds,
 * lengths, patterns, formats date, time, date-time and uuid. It ignores what it does not know.
 *
 * @param options.signal takes effect before the conversion begins, and behind it
 * @throws HeadstartError `SCHEMA_INVALID` (with the reason: also for references elsewhere and schemas that no finite text
 *   fits), `JSON_TOO_DEEP` (more than 64 levels), `INVALID_ARGUMENT`, `ABORTED`.
 */
export async function jsonSchemaToGrammar(
  schema: object,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<string> {
  const json = toJson('schema', schema);
  return unlessAborted(options?.signal, (abort) => addon().jsonSchemaToGrammar(json, abort));
}
