// In some formats, the grammars of llama.cpp's `common` allow calls without required arguments, and arguments of a
// wrong type. This file rewrites the grammar of each call so that the arguments follow the schema of the tool.
import { HeadstartError } from '../errors.js';
import { isObject, type Json, type JsonObject } from '../json.js';
import { jsonSchemaToGrammar, type ReplyFormat } from '../native/reply.js';
import { targetOf } from '../schema-walk.js';
import { gemmaCall } from './gemma-arguments.js';
import type { ToolDefinition } from './renderer.js';

/** The form in which a model writes the arguments of a call. */
export type ArgumentForm =
  /** JSON. */
  | 'json'
  /** An object in the notation of Gemma 4. */
  | 'gemma'
  /** Each argument in its own tags. */
  | 'tagged'
  /** Like `tagged`, but the grammar allows any text as a value (Kimi K3). */
  | 'kimi'
  /** Keyword arguments of Python (LFM2). */
  | 'pythonic';

/**
 * Recognizes the form of arguments in a grammar for one tool with one parameter. The names of the tool and the
 * parameter must occur nowhere else in the grammar.
 */
export function argumentForm(grammar: string, tool: string, parameter: string): ArgumentForm {
  if (!grammar.includes(`"${parameter}"`)) {
    return grammar.includes(`("${tool}") gemma4-dict\n`) ? 'gemma' : 'json';
  }
  if (grammar.includes(KIMI_ARGUMENT)) {
    return 'kimi';
  }
  return grammar.includes(`("${tool}" "(")`) ? 'pythonic' : 'tagged';
}

/** Names of rules for the arguments of Kimi K3 begin with this prefix. */
const KIMI_ARGUMENT = 'kimi-k3-arg-';

/**
 * Returns the tools from which `common` makes a parser. For Kimi K3, each argument gets one of two types. The type is
 * `object` if the schema clearly excludes strings. Otherwise it is `string`, and the parser reads the argument as text.
 */
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

/** Whether a value of the schema may be a string. True unless the schema clearly excludes strings. */
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
 * Rewrites the rules for the calls of these tools. The rule for a call stays unchanged if no grammar can express the
 * tool's schema.
 *
 * @param format has a grammar for these tools, in which tool names contain only letters and digits
 * @throws HeadstartError as {@link jsonSchemaToGrammar}, other than `SCHEMA_INVALID`.
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

/**
 * Derives the grammar of a call from the grammar of a JSON object: parentheses replace the outer braces, and `=`
 * replaces the colon after each name.
 */
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

/** Allows strings in single quotes, and the constants of Python. */
function withPythonLiterals(grammar: string, name: string): string {
  const rule = (type: string) => new RegExp(`^(${name}-${type} ::= .*)$`, 'm');
  return grammar
    .replace(/"\\"([^"'\\]*)\\""/g, `("\\"$1\\"" | "'$1'")`)
    .replace(rule('string'), `$1 | "'" ([^'\\\\\\x7F\\x00-\\x1F] | [\\\\] (['\\\\bfnrt] | "u" [0-9a-fA-F]{4}))* "'"`)
    .replace(rule('boolean'), '$1 | "True" | "False"')
    .replace(rule('null'), '$1 | "None"');
}

/**
 * Fixes the order of arguments. Most grammars of `common` allow any number of arguments in any order. A grammar that
 * already has a fixed order stays unchanged.
 */
function taggedCall(grammar: string, name: string, schema: JsonObject): string {
  const loose = new RegExp(`^(tool-${name} ::= .* )\\(\\((.*)\\) space\\)\\*(.*)$`, 'm');
  return grammar.replace(
    loose,
    (_, before, all, after) => `${before}${inOrder(alternatives(all), schema, ' space')}${after}`,
  );
}

/** Fixes the order of arguments, and requires JSON for a value that cannot be a string. */
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
 * Puts the required arguments first, in the order of the schema. The optional arguments follow, each at most once.
 *
 * @param rules one rule for each argument, in any order. A rule contains the name of its argument.
 */
function inOrder(rules: readonly string[], { properties, required }: JsonObject, between: string): string {
  const names = new Set(Array.isArray(required) ? required : []);
  return Object.keys(properties as JsonObject)
    .sort((a, b) => Number(names.has(b)) - Number(names.has(a)))
    .map((key) => {
      const argument = rules.find((each) => each.includes(key));
      return names.has(key) ? `${argument}${between}` : `(${argument}${between})?`;
    })
    .join(' ');
}

/** Splits the text of a group, without its parentheses, into alternatives. */
function alternatives(text: string): string[] {
  const parts = [''];
  let depth = 0;
  for (const [token] of text.matchAll(TOKENS)) {
    depth += Number(token === '(') - Number(token === ')');
    if (token === '|' && depth === 0) {
      parts.push('');
    } else {
      parts.push(`${parts.pop()}${token}`);
    }
  }
  return parts.map((each) => each.trim());
}

/** Matches the tokens of a GBNF grammar: literals, character classes, names of rules, and other single characters. */
const TOKENS = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[a-zA-Z][\w-]*|./gs;

/** The rules of a JSON object, each with the tool's name as a prefix. Undefined if the schema has no grammar. */
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
