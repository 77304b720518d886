// Replies that must be JSON of a schema.
import { jsonSchemaToGrammar, type ReplyFormat } from '../native/reply.js';

/** Any JSON. `common` takes the schema that says nothing for none. */
const ANY_JSON = { description: 'JSON' };

/** A schema that `common` does not take for none. */
export function requiredSchema(schema: object): object {
  return Object.keys(schema).length === 0 ? ANY_JSON : schema;
}

/**
 * A grammar of `common` that ends a thought before the JSON begins. Some of its grammars let a thought go on without an end (Qwen3.5's):
 * the JSON would then be part of the thought.
 */
export function withEndedThought<Format extends ReplyFormat>(format: Format): Format {
  return {
    ...format,
    grammar: format.grammar.replace(/^(root ::= .*)\(("[^"]+") \| \)(\)\? space response-format)$/m, '$1$2$3'),
  };
}

/**
 * The form of a JSON reply for chat templates that `common` has no grammar of it for (Kimi K2's, GigaChat 3's and others): the reply
 * begins as the chat template begins replies, and goes on with JSON.
 *
 * @param free the form of a reply that may be any text
 * @param opening what the chat template writes between the opening of the assistant's turn and the text of a reply
 * @param mayThink whether the model may think first, if there is the end of a thought in the opening
 * @throws HeadstartError `SCHEMA_INVALID`.
 */
export async function jsonReplyFormat<Format extends ReplyFormat>(
  free: Format,
  schema: object,
  opening: string,
  mayThink: boolean,
): Promise<Format> {
  const json = await jsonSchemaToGrammar(schema);
  const end = mayThink ? free.thinkingEndTags.find((tag) => tag !== '' && opening.includes(tag)) : undefined;
  const at = end === undefined ? opening.length : opening.indexOf(end);
  const thought = end === undefined ? '' : `${THOUGHT}-0 ${literal(opening.slice(at))}`;
  const root = (_: string, body: string) => `root ::= ${literal(opening.slice(0, at))} ${thought} (${body})`;
  return {
    ...free,
    grammar: [json.replace(/^root ::= (.*)$/m, root), ...(end === undefined ? [] : thoughtRules(end))].join('\n'),
    grammarLazy: false,
    grammarTriggers: [],
    generationPrompt: '', // the grammar begins after it
  };
}

const THOUGHT = 'headstart-thought';

/** Rules for a text without `end` in it. The rule `headstart-thought-n` follows the first n characters of `end`. */
function thoughtRules(end: string): string[] {
  const characters = [...end];
  const different = [...new Set(characters)];
  return characters.map((_, begun) => {
    const places = different.map((each) => longestBeginning(characters, [...characters.slice(0, begun), each]));
    const ways = different.flatMap((each, index) => {
      const place = places[index] as number;
      return place === 0 || place === characters.length ? [] : [`[${escaped(each)}] ${THOUGHT}-${place}`];
    });
    const others = different.filter((_, index) => places[index] !== 0).map(escaped);
    return `${THOUGHT}-${begun} ::= ${['', ...ways, `[^${others.join('')}] ${THOUGHT}-0`].join(' | ')}`;
  });
}

/** How many of the first characters of `end` a text ends with. */
function longestBeginning(end: readonly string[], text: readonly string[]): number {
  let length = Math.min(end.length, text.length);
  while (end.slice(0, length).join('') !== text.slice(text.length - length).join('')) {
    length--;
  }
  return length;
}

function literal(text: string): string {
  return `"${Array.from(text, escaped).join('')}"`;
}

function escaped(character: string): string {
  const code = character.codePointAt(0) as number;
  return /[\w <>/|]/.test(character) ? character : `\\U${code.toString(16).padStart(8, '0')}`;
}
