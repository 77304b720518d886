// Formats whose calls have no marker. For example, calls of Llama 3 are bare JSON: {"name": ..., "parameters": ...}.
import { templatePattern } from '../native/grammar-trigger.js';
import type { ReplyFormat } from '../native/reply.js';

/** The text that the rule `space` in grammars of llama.cpp's `common` matches. */
const SPACE = '(?: |\\n{1,2}[ \\t]{0,20})?';
const NAME = `"name"${SPACE}:${SPACE}"`;
const TYPE = `"type"${SPACE}:${SPACE}"function"${SPACE},${SPACE}`;

/** The beginning of the trigger of a format without call markers. No other format has such a trigger. */
const TRIGGER = '^\\s*(\\{';
const BEGINNINGS = ['{"name":"', '{"type":"function","name":"'];

/** Whether calls have no marker in this format. */
export function hasBareCalls({ grammarTriggers }: ReplyFormat): boolean {
  return grammarTriggers.some((trigger) => trigger.type === 'pattern' && trigger.value.startsWith(TRIGGER));
}

/** Whether a text begins like a bare call. The text may be unfinished. */
export function mayBeBareCall(text: string): boolean {
  const packed = text.slice(0, 256).replace(/\s+/g, '');
  return BEGINNINGS.some((each) => each.startsWith(packed) || packed.startsWith(each));
}

/**
 * Makes the format of a reply that may be a call, for chat templates whose calls have no marker. `common` makes no
 * grammar for such a reply, because no marker could start the grammar. The grammar of this format starts when a reply
 * begins like a call, up to the opening quote of the name.
 *
 * @param free the format that `common` makes, without a grammar
 * @param required the format for the same tools in which a call is required
 */
export function bareCallFormat(free: ReplyFormat, required: ReplyFormat): ReplyFormat {
  const { grammar } = required;
  const isBare = /^tool-call ::= "" space /m.test(grammar) && grammar.includes('"\\"name\\"" space ":"');
  if (!isBare) {
    return free;
  }
  return {
    ...free,
    grammar: grammar.replace(/^root ::= .*$/m, 'root ::= tool-call'),
    grammarLazy: true,
    grammarTriggers: [templatePattern('pattern', `${TRIGGER}${SPACE}(?:${TYPE})?${NAME})`)],
  };
}
