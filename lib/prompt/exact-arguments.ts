// In some forms of calls, the grammars of `common` allow a call without its required arguments, and arguments of the wrong type. Here the
// grammar of each call is made to follow the tool's schema.
import { HeadstartError } from '../errors.js';
import { jsonSchemaToGrammar, type ReplyFormat } from '../native/reply.js';
import { isObject, type Json, type JsonObject, targetOf } from '../schema-walk.js';
import { gemmaCall } from './gemma-arguments.js';
import type { ToolDefinition } from './renderer.js';

/** How the arguments of a call are written. */
export type ArgumentForm =
  /** In JSON. */
  | 'json'
  /** As an object in a notation of its own (Gemma 4's). */
  | 'gemma'
  /** One by one, each in tags of its own. */
  | 'tagged'
  /** Likewise, with any text for a value (Kimi K3's). */
  | 'kimi'
  /** As Python's keyword arguments (LFM2's). */
  | 'pythonic';

/** The form that a grammar has for a tool and a parameter with these names, which stand nowhere else in it. */
export function argumentForm(grammar: string, tool: string, parameter: string): ArgumentForm {
  if (!grammar.includes(`"${parameter}"`)) {
    return grammar.includes(`("${tool}") gemma4-dict\n`) ? 'gemma' : 'json';
  }
  if (grammar.includes(KIMI_ARGUMENT)) {
    return 'kimi';
  }
  return grammar.includes(`("${tool}" "(")`) ? 'pythonic' : 'tagged';
}

/** Begins the names of rules for arguments. */
const KIMI_ARGUMENT = 'kimi-k3-arg-';

/** The tools that `common` makes a parser for: Kimi K3's takes an argument for text if it does not see another type at once. */
export function toolsForParser(tools: readonly ToolDefinition[], form: ArgumentForm): readonly ToolDefinition[] {
  if (form !== 'kimi') {
    return tools;
  }
  return tools.map((tool) => {
    const schema = (tool.parameters ?? {}) as JsonObject;
    const types = Object.entries((schema.properties ?? {}) as JsonObject).map(
      ([name, each]) => [name, { type: mayBeText(each, schema) ? 'string' : 'object' }] as const,
    );
    return { ...tool, parameters: { ...schema, properties: Object.fromEntries(types) } };
  });
}

/** Whether a value of the schema may be a string; true if the schema does not rule it out clearly. */
function mayBeText(schema: Json, root: JsonObject, depth = 0): boolean {
  if (!isObject(schema) || depth > MAX_REFERENCES) {
    return true;
  }
  const { $ref, enum: values, const: only, anyOf, oneOf, type, properties } = schema;
  if (typeof $ref === 'string') {
    return mayBeText(targetOf(root, $ref), root, depth + 1);
  }
  if (Array.isArray(values) || only !== undefined) {
    return (Array.isArray(values) ? values : [only]).some((each) => typeof each === 'string');
  }
  const choices = anyOf ?? oneOf;
  if (Array.isArray(choices)) {
    return choices.some((each) => mayBeText(each, root, depth + 1));
  }
  return type === undefined ? properties === undefined : [type].flat().includes('string');
}

const MAX_REFERENCES = 16;

/**
 * @param format with a grammar for these tools, which have names that only letters and digits make up
 * @throws HeadstartError as {@link jsonSchemaToGrammar}, but for schemas that no grammar can say: their calls stay as they are.
 */
export async function withExactArguments(
  format: ReplyFormat,
  tools: readonly ToolDefinition[],
  form: ArgumentForm,
): Promise<ReplyFormat> {
  let { grammar } = format;
  if (grammar === '' || form === 'json') {
    return format;
  }
  for (const { name, parameters } of tools) {
    const schema = parameters as JsonObject | undefined;
    if (isObject(schema?.properties) && Object.keys(schema.properties).length > 0) {
      grammar = await CALLS[form](grammar, name, schema);
    }
  }
  return { ...format, grammar };
}

const CALLS = { gemma: gemmaCall, kimi: kimiCall, pythonic: pythonicCall, tagged: taggedCall };

/** The grammar of a JSON object is that of a call with parentheses for its braces, and an equals sign for each of its own colons. */
async function pythonicCall(grammar: string, name: string, schema: JsonObject): Promise<string> {
  const object = await objectGrammar(name, schema);
  const root = new RegExp(`^${name}-root ::= "{" (.*) "}"$`, 'm');
  if (object === undefined || !root.test(object)) {
    return grammar;
  }
  const keys = new RegExp(`^(${name}-(\\w+)-kv ::= )"\\\\"\\2\\\\"" ${name}-space ":" ${name}-space `, 'gm');
  const rules = withPythonLiterals(object.replace(keys, '$1"$2" "=" '), name).replace(
    root,
    `tool-${name} ::= "${name}" "(" $1 ")"`,
  );
  return grammar.replace(new RegExp(`^tool-${name} ::= .*\n`, 'm'), () => rules);
}

/** Strings in single quotes, and the names of Python's constants. */
function withPythonLiterals(grammar: string, name: string): string {
  const rule = (type: string) => new RegExp(`^(${name}-${type} ::= .*)$`, 'm');
  return grammar
    .replace(/"\\"([^"'\\]*)\\""/g, `("\\"$1\\"" | "'$1'")`)
    .replace(rule('string'), `$1 | "'" ([^'\\\\\\x7F\\x00-\\x1F] | [\\\\] (['\\\\bfnrt] | "u" [0-9a-fA-F]{4}))* "'"`)
    .replace(rule('boolean'), '$1 | "True" | "False"')
    .replace(rule('null'), '$1 | "None"');
}

/** `common` repeats the alternatives in this form, or each argument has a place of its own already. */
function taggedCall(grammar: string, name: string, schema: JsonObject): string {
  const loose = new RegExp(`^(tool-${name} ::= .* )\\(\\((.*)\\) space\\)\\*(.*)$`, 'm');
  return grammar.replace(
    loose,
    (_, before, all, after) => `${before}${inOrder(alternatives(all), schema, ' space')}${after}`,
  );
}

/** Values of which no string can be made are JSON. */
async function kimiCall(grammar: string, name: string, schema: JsonObject): Promise<string> {
  const prefix = `${KIMI_ARGUMENT}${name}-`;
  const properties = schema.properties as JsonObject;
  const all = Object.keys(properties).map((key) => `${prefix}${key}`);
  const loose = new RegExp(`^(kimi-k3-tool-${name} ::= .*? )\\(?${prefix}.*\\* (.*)$`, 'm');
  let result = grammar.replace(loose, (_, before, after) => `${before}${inOrder(all, schema, '')} ${after}`);
  const object = await objectGrammar(name, schema);
  if (object === undefined) {
    return result;
  }
  for (const [key, property] of Object.entries(properties)) {
    const [, value] = new RegExp(`^${name}-${key}-kv ::= \\S+ \\S+ ":" \\S+ (.*)$`, 'm').exec(object) ?? [];
    if (value !== undefined && !mayBeText(property, schema)) {
      const rule = new RegExp(`^(${prefix}${key} ::= .*) until-\\d+ ("[^"]*")$`, 'm');
      result = result.replace(rule, (_, before, after) => `${before} ${value} ${after}`);
    }
  }
  return `${result.trimEnd()}\n${object}`;
}

/**
 * Required arguments in the order of the schema, and then the others, each at most once.
 *
 * @param written those of the schema in any order, each with its name in it
 */
function inOrder(written: readonly string[], { properties, required }: JsonObject, between: string): string {
  const names = new Set(Array.isArray(required) ? required : []);
  return Object.keys(properties as JsonObject)
    .sort((a, b) => Number(names.has(b)) - Number(names.has(a)))
    .map((key) => {
      const argument = written.find((each) => each.includes(key));
      return names.has(key) ? `${argument}${between}` : `(${argument}${between})?`;
    })
    .join(' ');
}

/** The alternatives of a group, by its text without the parentheses. */
function alternatives(text: string): string[] {
  const found = [''];
  let depth = 0;
  for (const [token] of text.matchAll(TOKENS)) {
    depth += Number(token === '(') - Number(token === ')');
    if (token === '|' && depth === 0) {
      found.push('');
    } else {
      found.push(`${found.pop()}${token}`);
    }
  }
  return found.map((each) => each.trim());
}

/** Literals, character classes, names of rules, and all other characters of a GBNF grammar. */
const TOKENS = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[a-zA-Z][\w-]*|./gs;

/** Rules for a JSON object of the schema, with a tool's name in front of theirs; undefined for a schema that no grammar can say. */
async function objectGrammar(name: string, schema: JsonObject): Promise<string | undefined> {
  try {
    const grammar = await jsonSchemaToGrammar({ ...schema, type: 'object', additionalProperties: false });
    return grammar.replace(TOKENS, (token) => (/^[a-zA-Z]/.test(token) ? `${name}-${token}` : token));
  } catch (error) {
    if (HeadstartError.isInstance(error, 'SCHEMA_INVALID')) {
      return undefined;
    }
    throw error;
  }
}
