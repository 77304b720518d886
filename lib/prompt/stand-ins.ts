// `common` names the rules of its grammars and parsers after tools and parameters. It folds characters for that (`user_id` and
// `user-id` are one rule), and has rules of its own (`tool-call` is also the rule of a tool named `call`). A rule that is defined twice
// loses one of the two, so a declared tool could not be called and another one was. `common` therefore gets stand-ins that
// cannot collide, and the real names replace them in what it made: everywhere that a name is text, and not the name of a rule.
import { HeadstartError } from '../errors.js';
import { type GrammarTrigger, templatePattern } from '../native/grammar-trigger.js';
import { type ReplyFormat, replyWithNames } from '../native/reply.js';
import { isObject, type Json, type JsonObject, mapBelow } from '../schema-walk.js';
import type { ArgumentForm } from './exact-arguments.js';
import type { ToolDefinition } from './renderer.js';
import { withSpelledWords } from './spelled-names.js';

/** Tools under other names, and what those stand for. */
export interface StandIns {
  /** A tool whose name begins with another's comes first: a parser takes the first one that fits. */
  tools: ToolDefinition[];
  /** Begins each stand-in, and stands nowhere else in the tools. Its index in `names` and an `e` follow. */
  mark: string;
  /** The real names. */
  names: string[];
}

/**
 * @param form of the format that is to be made. In objects, parameters keep their names: a grammar for JSON spells out, character by
 *   character, the names that further properties must not have.
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
      // The parser of pythonic calls asks for an argument if there are properties: without any it is the call of a second tool.
      return form === 'pythonic' && mayBeEmpty(schema) ? [whole, { ...tool, name: standIn(name) }] : whole;
    }),
  };
}

/** A format that `common` made for stand-ins, for replies with the real names. */
export async function withRealNames<Format extends ReplyFormat>(format: Format, standIns: StandIns): Promise<Format> {
  const { mark, names } = standIns;
  const spelled = new Map(names.map((name, index) => [`${mark}${index}${END}`, `"${inGrammarLiteral(name)}"`]));
  const grammar = format.grammar.replace(GRAMMAR_TEXT, (text) =>
    text.startsWith('"') ? realNamesIn(text, standIns, inGrammarLiteral) : text,
  );
  return {
    ...format,
    grammar: withSpelledWords(grammar, spelled),
    grammarTriggers: format.grammarTriggers.map((trigger) => withRealNamesInTrigger(trigger, standIns)),
    parser: await replyWithNames(format, standIns),
  };
}

/** A text with the real names, each as `written` has it. */
function realNamesIn(
  text: string,
  { mark, names }: Pick<StandIns, 'mark' | 'names'>,
  written: (name: string) => string = (name) => name,
): string {
  return text.replace(new RegExp(`${mark}(\\d+)${END}`, 'g'), (found, index) => {
    const name = names[Number(index)];
    return name === undefined ? found : written(name);
  });
}

/** An error about stand-ins, about the real names. */
export function withRealNamesInError(error: unknown, standIns: StandIns): unknown {
  return HeadstartError.isInstance(error) && error.message.includes(standIns.mark)
    ? new HeadstartError(error.code, realNamesIn(error.message, standIns), { cause: error })
    : error;
}

/** Without it, the stand-in of the first name would begin that of the eleventh. */
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

/** References may lead into the properties. */
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
  return name.replace(/["\\\n\r]/g, (found) => ESCAPES[found] as string);
}

const ESCAPES: Readonly<Record<string, string>> = { '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r' };

function inPattern(name: string): string {
  return name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
