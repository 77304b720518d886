// What `common`'s grammars of tool calls leave too open.
import type { ReplyFormat } from '../native/reply.js';

/**
 * A call that must be made is made at once: the grammar of most forms lets any text stand before it, in which small models
 * lose their way. And the forms with a marker around each call (Hermes, for one) allow several where one was asked for: `common`
 * heeds `parallelToolCalls` only inside of the marker. What is not narrowed here, the turn ends at its second call.
 */
export function narrowed(format: ReplyFormat, required: boolean, parallel: boolean): ReplyFormat {
  let { grammar } = format;
  if (required) {
    grammar = grammar.replace(/^(root ::= .*) until-\d+\??((?: space)? tool-calls?(?:-root)?)$/m, '$1$2');
  }
  if (!parallel) {
    grammar = grammar.replace(/^tool-calls ::= \(tool-call\?? space\)\+$/m, 'tool-calls ::= tool-call space');
  }
  // gpt-oss's: a name may be followed by the name of a data type, and needs an end in front of that.
  grammar = grammar.replaceAll(
    '(space "<|constrain|>"? [A-Za-z0-9_-]+)?',
    '((" " "<|constrain|>"? | "<|constrain|>") [A-Za-z0-9_-]+)?',
  );
  return grammar === format.grammar ? format : { ...format, grammar };
}
