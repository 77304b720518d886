// The format of a reply that either calls tools or is JSON.
import type { ReplyFormat } from '../native/reply.js';
import { literal, withRulePrefix } from './grammar-rules.js';

/** Begin the names of the rules of the two grammars. */
const CALL = 'c-';
const JSON_REPLY = 'j-';

/**
 * What some grammars of JSON allow, although the parser of calls would read it as text: a code fence around the JSON, a
 * text without its end (Cohere), and the type of the text (gpt-oss).
 */
const NARROWINGS = [
  [/"```json" space ([\w-]+) space "```"/g, '$1'],
  [/"<\|END_TEXT\|>"\?/g, '"<|END_TEXT|>"'],
  [/\(space "<\|constrain\|>"\? \[A-Za-z0-9_-\]\+\)\? /g, ''],
] as const;

/**
 * Whether the grammar of a JSON reply can stand beside that of calls. Some formats of calls have no reasoning, or
 * another generation prompt, because the chat template does not describe tools.
 */
export function fitsCalls(json: ReplyFormat, calls: ReplyFormat): boolean {
  const hasSamePrompt = ['', calls.generationPrompt].includes(json.generationPrompt);
  return hasSamePrompt && (calls.supportsThinking || !json.supportsThinking);
}

/**
 * Makes the format of a reply that either calls tools or is JSON.
 *
 * @param free the format of a reply that may call tools. Its parser reads the reply.
 * @param call the format of a reply that must call tools
 * @param json the format of a reply that must be JSON
 */
export function callOrJsonFormat(free: ReplyFormat, call: ReplyFormat, json: ReplyFormat): ReplyFormat {
  const { generationPrompt } = call;
  // A grammar that is not from `common` begins after the generation prompt.
  const opening = json.generationPrompt === generationPrompt ? '' : `${literal(generationPrompt)} `;
  let jsonGrammar = json.grammar;
  for (const [pattern, replacement] of NARROWINGS) {
    jsonGrammar = jsonGrammar.replace(pattern, replacement);
  }
  const grammar = [
    `root ::= ${CALL}root | ${opening}${JSON_REPLY}root`,
    withRulePrefix(call.grammar, CALL),
    withRulePrefix(jsonGrammar, JSON_REPLY),
  ].join('\n');
  return { ...free, grammar, grammarLazy: false, grammarTriggers: [], generationPrompt };
}
