// The formats of replies that must follow a grammar, for example a grammar of JSON.
import type { ReplyFormat } from '../native/reply.js';
import { escaped, literal, withRulePrefix } from './grammar-rules.js';

/** A schema that allows any JSON. `common` ignores an empty schema, so this schema has a keyword. */
const ANY_JSON = { description: 'JSON' };

/** Returns the schema. An empty schema is replaced by {@link ANY_JSON}, because `common` ignores an empty schema. */
export function requiredSchema(schema: object): object {
  return Object.keys(schema).length === 0 ? ANY_JSON : schema;
}

/**
 * Requires that a thought ends in front of the JSON. Some grammars of `common` (for Qwen3.5) allow a thought without an
 * end. The JSON would then be part of the thought.
 */
export function withEndedThought<Format extends ReplyFormat>(format: Format): Format {
  return {
    ...format,
    grammar: format.grammar.replace(/^(root ::= .*)\(("[^"]+") \| \)(\)\? space response-format)$/m, '$1$2$3'),
  };
}

/**
 * Makes the format of a reply that follows a grammar. Also used for JSON if `common` has no format for JSON with this
 * chat template (Kimi K2, GigaChat 3 and others). The reply begins with `opening`.
 *
 * @param free the format of a reply that may be any text
 * @param text the grammar of the text
 * @param opening the text that the chat template writes between the generation prompt and the text of a reply
 * @param mayThink whether the model may reason first. Has an effect only if the opening contains the end of a thought.
 */
export function grammarReplyFormat<Format extends ReplyFormat>(
  free: Format,
  text: string,
  opening: string,
  mayThink: boolean,
): Format {
  const end = mayThink ? free.thinkingEndTags.find((tag) => tag !== '' && opening.includes(tag)) : undefined;
  const at = end === undefined ? opening.length : opening.indexOf(end);
  const thought = end === undefined ? '' : `${THOUGHT}-0 ${literal(opening.slice(at))} `;
  const root = `root ::= ${literal(opening.slice(0, at))} ${thought}${TEXT}root`;
  const rules = [root, withRulePrefix(text, TEXT), ...(end === undefined ? [] : thoughtRules(end))];
  return {
    ...free,
    grammar: rules.join('\n'),
    grammarLazy: false,
    grammarTriggers: [],
    generationPrompt: '', // the grammar begins after the generation prompt
  };
}

/** Begins the names of the rules of the text. */
const TEXT = 't-';

const THOUGHT = 'headstart-thought';

/**
 * Rules for text that does not contain `end`. The grammar is in the rule `headstart-thought-n` if the text so far ends
 * with the first n characters of `end`.
 */
function thoughtRules(end: string): string[] {
  const characters = [...end];
  const different = [...new Set(characters)];
  return characters.map((_, state) => {
    const nextStates = different.map((each) => longestPrefix(characters, [...characters.slice(0, state), each]));
    const transitions = different.flatMap((each, index) => {
      const next = nextStates[index] as number;
      return next === 0 || next === characters.length ? [] : [`[${escaped(each)}] ${THOUGHT}-${next}`];
    });
    const others = different.filter((_, index) => nextStates[index] !== 0).map(escaped);
    return `${THOUGHT}-${state} ::= ${['', ...transitions, `[^${others.join('')}] ${THOUGHT}-0`].join(' | ')}`;
  });
}

/** The length of the longest prefix of `end` with which `text` ends. */
function longestPrefix(end: readonly string[], text: readonly string[]): number {
  let length = Math.min(end.length, text.length);
  while (end.slice(0, length).join('') !== text.slice(text.length - length).join('')) {
    length--;
  }
  return length;
}
