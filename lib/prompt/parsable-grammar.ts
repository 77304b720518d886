// Some grammars of llama.cpp's `common` allow text that the parser of the same format refuses. The parser may then not
// recognize a call. This file restricts these grammars to text that the parsers accept. A test checks this with random
// replies from the grammars of all chat templates.
import type { ReplyFormat } from '../native/reply.js';

/** The white space that parsers skip in front of a key. */
const SPACES = ' \\t\\n\\r\\x0B\\x0C';

type Narrowing = readonly [pattern: RegExp, replacement: string];

const NARROWINGS: readonly Narrowing[] = [
  // Strings of JSON and Python: control characters are escaped, but spaces are not.
  [/\[\^(["'])\\\\\] \| "\\\\" \( \[\1\\\\\/ bfnrt\]/g, '[^$1\\\\\\x00-\\x1F] | "\\\\" ( [$1\\\\/bfnrt]'],
  // Gemma 4's keys: the white space in front of a key does not belong to the key.
  [/^gemma4-dict-key-name ::= \[\^:\}\]\+$/m, `gemma4-dict-key-name ::= [^:}${SPACES}] [^:}]*`],
  // Functionary 3.2: a call after a text begins with a marker. The parser stops at this marker and reads no call.
  [/^(root ::= .*>>>") \("all\\n" until-\d+ .* \| tools\)$/m, '$1 tools'],
  // Kimi K3: a thought must end in front of the call.
  [
    /^(root ::= .*)\(("<\|open\|>think<\|sep\|>")\? (until-\d+) ("<\|close\|>think<\|sep\|>")\?\)\? "<\|open\|>response<\|sep\|>"\? until-\d+ "<\|close\|>response<\|sep\|>"\? /m,
    '$1($2 $3 $4)? ',
  ],
];

/** GLM's tag for arguments. GLM's parser expects the end of the call right after the last argument. */
const ARGUMENT_TAG = '"<arg_key>"';
const END_OF_CALL = '"</tool_call>"';

/** Restricts the grammar of a format to text that the format's parser accepts. */
export function withParsableGrammar(format: ReplyFormat): ReplyFormat {
  if (format.grammar === '') {
    return format;
  }
  const { grammarLazy, grammarTriggers } = format;
  if (grammarLazy && grammarTriggers.some((trigger) => trigger.type === 'pattern' && trigger.value === MARK_AND_NAME)) {
    return { ...format, grammar: '', grammarLazy: false, grammarTriggers: [] };
  }
  let { grammar } = format;
  for (const [pattern, replacement] of NARROWINGS) {
    grammar = grammar.replace(pattern, replacement);
  }
  if (grammar.includes(ARGUMENT_TAG)) {
    grammar = grammar.replace(/^tool-call ::= .*$/m, (rule) => rule.replaceAll(`space ${END_OF_CALL}`, END_OF_CALL));
  }
  return grammar === format.grammar ? format : { ...format, grammar };
}

/**
 * A trigger of Functionary 3.2. The trigger matches the marker and the name, but the grammar begins at the name. The
 * grammar would therefore refuse every call.
 */
const MARK_AND_NAME = '>>>(?!all)';
