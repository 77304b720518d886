// The text of reasoning items. Some clients return only the field `encrypted_content`, so this field holds the text too.
import { isObject } from '../../json.js';
import type { Item } from './items.js';

/** Distinguishes the texts of this server from texts of other servers, which this server cannot read. */
const PREFIX = 'headstart.';

/** The value of `encrypted_content`. The text is only encoded, because the client has it anyway. */
export function encodedReasoning(text: string): string {
  return PREFIX + Buffer.from(text).toString('base64');
}

/** The reasoning in an item, from the first field that has it. */
export function reasoningOf({ content, encrypted_content: encoded, summary }: Item): string {
  return textsOf(content).join('') || decodedReasoning(encoded) || textsOf(summary).join('\n\n');
}

function decodedReasoning(encoded: unknown): string {
  return typeof encoded === 'string' && encoded.startsWith(PREFIX)
    ? Buffer.from(encoded.slice(PREFIX.length), 'base64').toString()
    : '';
}

/** The texts of the parts that have one. */
function textsOf(parts: unknown): string[] {
  return Array.isArray(parts)
    ? parts.flatMap((part) => (isObject(part) && typeof part.text === 'string' ? [part.text] : []))
    : [];
}
