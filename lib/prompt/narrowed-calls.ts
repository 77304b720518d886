// Restricts the grammars that llama.cpp's `common` makes for tool calls.
import type { ReplyFormat } from '../native/reply.js';

/**
 * Restricts the grammar of calls in two ways.
 *
 * With `required`, the reply must begin with the call. Most grammars allow any text in front of a required call, and
 * small models may then never write the call.
 *
 * Without `parallel`, the reply may have only one call. Formats with a marker around each call (Hermes, for example)
 * allow several calls even if only one was requested, because `common` applies `parallelToolCalls` only inside the
 * marker. If this function does not know a format, the reply ends when its second call begins.
 */
export function withNarrowedCalls(format: ReplyFormat, required: boolean, parallel: boolean): ReplyFormat {
  let { grammar } = format;
  if (required) {
    grammar = grammar.replace(/^(root ::= .*) until-\d+\??((?: space)? tool-calls?(?:-root)?)$/m, '$1$2');
  }
  if (!parallel) {
    grammar = grammar.replace(/^tool-calls ::= \(tool-call\?? space\)\+$/m, 'tool-calls ::= tool-call space');
  }
  // gpt-oss may write the type of the arguments after the name. The parser would read any other word as part of the
  // name.
  grammar = grammar.replaceAll(
    '(space "<|constrain|>"? [A-Za-z0-9_-]+)?',
    '(" json" | " "? "<|constrain|>" [A-Za-z0-9_-]+)?',
  );
  return grammar === format.grammar ? format : { ...format, grammar };
}
