// llama.cpp's `common` names the rules of its grammars and parsers after tools and parameters. Two names may lead to
// the same rule name (`user_id` and `user-id`), or to a rule name that `common` uses itself (`tool-call` for a tool
// named `call`). Of two rules with the same name, one is lost, and a call could then reach the wrong tool. Therefore
// `common` receives stand-ins that cannot collide. In the finished grammar and parser, the real names replace the
// stand-ins, but not in the names of rules.
import { HeadstartError } from '../errors.js';
import { isObject, type Json, type JsonObject } from '../json.js';
import { type GrammarTrigger, templatePattern } from '../native/grammar-trigger.js';
import { type ReplyFormat, replyWithNames } from '../native/reply.js';
import { mapBelow } from '../schema-walk.js';
import type { ArgumentForm } from './exact-arguments.js';
import type { ToolDefinition } from './renderer.js';
import { withSpelledNames } from './spelled-names.js';

/** Tools with stand-ins for their names, and the real names. */
export interface StandIns {
  /**
   * The tools, longest real name first. A parser takes the first name that matches, so a name must come after all
   * longer names that begin with it.
   */
  tools: ToolDefinition[];
  /**
   * The beginning of each stand-in. The mark occurs nowhere else in the tools. The index in `names` and an `e` follow
   * the mark.
   */
  mark: string;
  /** The real names. */
  names: string[];
}

/**
 * @param form the form of arguments in the format. In the forms `json` and `gemma`, parameters keep their names. The
 *   reason: a JSON grammar spells out, character by character, the names that additional properties must not have.
 */
export function standInsFor(tools: readonly ToolDefinition[], form: ArgumentForm): StandIns {
  const mark = freeMark(JSON.stringify(tools));
  const names: string[] = [];
  const standIn = (name: string) => `${mark}${names.push(name) - 1}${END}`;
  const longestFirst = [...tools].sort((a, b) => b.name.length - a.name.length);
  return {
    mark,
    names,
    tools: longestFirst.flatMap(({ parameters, name, ...tool }) => {
      if (parameters === undefined) {
        return { ...tool, name: standIn(name) };
      }
      const schema = parameters as JsonObject;
      const named = form === 'json' || form === 'gemma' ? schema : withPropertiesNamed(schema, standIn);
      const whole = { ...tool, name: standIn(name), parameters: named };
      // If a tool has properties, the parser of pythonic calls requires an argument. A second tool of the same name,
      // without properties, allows calls without arguments.
      return form === 'pythonic' && mayBeEmpty(schema) ? [whole, { ...tool, name: standIn(name) }] : whole;
    }),
  };
}

/** Puts the real names into a format that `common` made with stand-ins. */
export async function withRealNames<Format extends ReplyFormat>(format: Format, standIns: StandIns): Promise<Format> {
  const { mark, names } = standIns;
  const spelled = new Map(names.map((name, index) => [`${mark}${index}${END}`, `"${inGrammarLiteral(name)}"`]));
  const grammar = format.grammar.replace(GRAMMAR_TEXT, (text) =>
    text.startsWith('"') ? realNamesIn(text, standIns, inGrammarLiteral) : text,
  );
  return {
    ...format,
    grammar: withSpelledNames(grammar, spelled),
    grammarTriggers: format.grammarTriggers.map((trigger) => withRealNamesInTrigger(trigger, standIns)),
    parser: await replyWithNames(format, standIns),
  };
}

/** Replaces the stand-ins in a text. `written` returns the notation of a name in this text. */
function realNamesIn(
  text: string,
  { mark, names }: Pick<StandIns, 'mark' | 'names'>,
  written: (name: string) => string = (name) => name,
): string {
  return text.replace(new RegExp(`${mark}(\\d+)${END}`, 'g'), (standIn, index) => {
    const name = names[Number(index)];
    return name === undefined ? standIn : written(name);
  });
}

/** Puts the real names into the message of an error. */
export function withRealNamesInError(error: unknown, standIns: StandIns): unknown {
  return HeadstartError.isInstance(error) && error.message.includes(standIns.mark)
    ? new HeadstartError(error.code, realNamesIn(error.message, standIns), { cause: error })
    : error;
}

/** Ends a stand-in. Without this character, stand-in 1 would be the beginning of stand-in 10. */
const END = 'e';

/** Literals and character classes of a GBNF grammar. */
const GRAMMAR_TEXT = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]/gs;

function freeMark(taken: string): string {
  let mark = 'headstartname';
  while (taken.includes(mark)) {
    mark += 'x';
  }
  return mark;
}

function mayBeEmpty({ properties, required }: JsonObject): boolean {
  return (
    isObject(properties) && Object.keys(properties).length > 0 && !(Array.isArray(required) && required.length > 0)
  );
}

function withPropertiesNamed(schema: JsonObject, standIn: (name: string) => string): JsonObject {
  if (!isObject(schema.properties)) {
    return schema;
  }
  const standIns = new Map(Object.keys(schema.properties).map((name) => [name, standIn(name)]));
  const renamed = (name: unknown) => standIns.get(name as string) ?? name;
  const { properties, required, ...rest } = mapBelow(schema, (each) => withReferences(each, renamed));
  return {
    ...rest,
    properties: Object.fromEntries(
      Object.entries(properties as JsonObject).map(([name, each]) => [renamed(name), each]),
    ),
    ...(required !== undefined && { required: Array.isArray(required) ? required.map(renamed) : required }),
  };
}

/** Renames properties in references that begin with `#/properties/`. */
function withReferences(schema: Json, renamed: (name: string) => unknown): Json {
  if (!isObject(schema)) {
    return schema;
  }
  const below = mapBelow(schema, (each) => withReferences(each, renamed));
  const { $ref } = below;
  return typeof $ref === 'string'
    ? { ...below, $ref: $ref.replace(/^(#\/properties\/)([^/]+)/, (_, start, name) => `${start}${renamed(name)}`) }
    : below;
}

function withRealNamesInTrigger(trigger: GrammarTrigger, standIns: StandIns): GrammarTrigger {
  switch (trigger.type) {
    case 'token':
      return trigger;
    case 'word':
      return { ...trigger, value: realNamesIn(trigger.value, standIns) };
    default:
      return templatePattern(trigger.type, realNamesIn(trigger.value, standIns, inPattern));
  }
}

function inGrammarLiteral(name: string): string {
  return name.replace(/["\\\n\r]/g, (character) => ESCAPES[character] as string);
}

const ESCAPES: Readonly<Record<string, string>> = { '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r' };

function inPattern(name: string): string {
  return name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
