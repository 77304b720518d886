// Calls that nothing marks: Llama 3's are bare JSON, {"name": ..., "parameters": ...}.
import { templatePattern } from '../native/grammar-trigger.js';
import type { ReplyFormat } from '../native/reply.js';

/** What `common`'s rule `space` takes. */
const SPACE = '(?: |\\n{1,2}[ \\t]{0,20})?';
const NAME = `"name"${SPACE}:${SPACE}"`;
const TYPE = `"type"${SPACE}:${SPACE}"function"${SPACE},${SPACE}`;

/** Begins the trigger of such a form, and of no other. */
const TRIGGER = '^\\s*(\\{';
const BEGINNINGS = ['{"name":"', '{"type":"function","name":"'];

/** Whether calls are bare in this form. */
export function hasBareCalls({ grammarTriggers }: ReplyFormat): boolean {
  return grammarTriggers.some((trigger) => trigger.type === 'pattern' && trigger.value.startsWith(TRIGGER));
}

/** Whether a text begins as a bare call does, as far as it goes. */
export function mayBeBareCall(text: string): boolean {
  const packed = text.slice(0, 256).replace(/\s+/g, '');
  return BEGINNINGS.some((each) => each.startsWith(packed) || packed.startsWith(each));
}

/**
 * The form of a reply that may be a call, for chat templates whose calls begin with no marker: `common` makes no grammar then,
 * as it has nothing to wait for. A reply that begins as a call does (as far as the name's first quote) is held to the rest.
 *
 * @param free as `common` has it, without a grammar
 * @param required of the same tools, where a call must be made
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
