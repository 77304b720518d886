// Some grammars of `common` allow what the parser of the same format refuses: a reply would follow the grammar and still be no
// call. They are narrowed here to what the parsers read. A test draws random replies from the grammars of all chat templates.
import type { ReplyFormat } from '../native/reply.js';

/** What white space is to the parsers, which skip all of it in front of a key. */
const SPACES = ' \\t\\n\\r\\x0B\\x0C';

type Narrowing = readonly [pattern: RegExp, replacement: string];

const NARROWINGS: readonly Narrowing[] = [
  // JSON's and Python's strings: a space is not escaped, and control characters are.
  [/\[\^(["'])\\\\\] \| "\\\\" \( \[\1\\\\\/ bfnrt\]/g, '[^$1\\\\\\x00-\\x1F] | "\\\\" ( [$1\\\\/bfnrt]'],
  // Gemma 4's keys: the white space in front of a key is not the key.
  [/^gemma4-dict-key-name ::= \[\^:\}\]\+$/m, `gemma4-dict-key-name ::= [^:}${SPACES}] [^:}]*`],
  // Functionary 3.2's: a call after a text needs a marker. The parser stops at this marker and reads no call.
  [/^(root ::= .*>>>") \("all\\n" until-\d+ .* \| tools\)$/m, '$1 tools'],
  // Kimi K3's: a thought that was begun is ended in front of the call.
  [
    /^(root ::= .*)\(("<\|open\|>think<\|sep\|>")\? (until-\d+) ("<\|close\|>think<\|sep\|>")\?\)\? "<\|open\|>response<\|sep\|>"\? until-\d+ "<\|close\|>response<\|sep\|>"\? /m,
    '$1($2 $3 $4)? ',
  ],
];

/** GLM's tags for arguments: their parser expects the end of the call right after the last one. */
const ARGUMENT_TAG = '"<arg_key>"';
const END_OF_CALL = '"</tool_call>"';

/** A grammar that allows what its parser reads, and no more. */
export function withAgreedGrammar(format: ReplyFormat): ReplyFormat {
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

/** Functionary 3.2's trigger is found in front of the name with the marker, and its grammar begins at the name: it would refuse that. */
const MARK_AND_NAME = '>>>(?!all)';
