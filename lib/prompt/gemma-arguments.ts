// Gemma 4 writes arguments as `{city:<|"|>Paris<|"|>,days:3}`. The grammar of `common` allows any keys and values. The
// rules of this file allow only the schema's keys and types of values, and demand the required keys. Bounds, lengths
// and patterns are checked after generation.
import { isObject, type Json, type JsonObject } from '../json.js';
import { targetOf } from '../schema-walk.js';
import { MORE_DIGITS } from './exact-json.js';

const QUOTE = '<|"|>';

/** Names of rules that `common` defines. */
const ANY = 'gemma4-value';
const OBJECT = 'gemma4-dict';
const TYPES: Readonly<Record<string, string>> = {
  string: 'gemma4-string',
  number: 'gemma4-number',
  integer: `"-"? ("0" | [1-9] [0-9]{0,${MORE_DIGITS}})`,
  boolean: 'gemma4-bool',
  null: 'gemma4-null',
  array: 'gemma4-array',
  object: OBJECT,
};

/** Rewrites a grammar so that the arguments of a call follow the schema of the called tool. */
export function gemmaCall(grammar: string, name: string, schema: JsonObject): string {
  const rules = new GemmaRules(name, schema);
  const call = `tool-${name} ::= "${name}" ${rules.root}\n${rules.text}`;
  return grammar.replace(new RegExp(`^tool-${name} ::= .*\\n`, 'm'), () => call);
}

/** The rules for one schema. */
class GemmaRules {
  readonly #prefix: string;
  readonly #schema: JsonObject;
  readonly #rules: string[] = [];
  /** The name of the rule for each reference. */
  readonly #references = new Map<string, string>();
  /** The name of the rule for all arguments. */
  readonly root: string;

  constructor(prefix: string, schema: JsonObject) {
    this.#prefix = prefix;
    this.#schema = schema;
    this.root = `${prefix}-root`;
    this.#rule(this.#object(schema), this.root);
  }

  get text(): string {
    return this.#rules.join('');
  }

  #rule(body: string, name = `${this.#prefix}-${this.#rules.length}`): string {
    this.#rules.push(`${name} ::= ${body}\n`);
    return name;
  }

  #value(schema: Json): string {
    if (!isObject(schema)) {
      return ANY;
    }
    const { $ref, enum: values, const: only, anyOf, oneOf, type } = schema;
    if (typeof $ref === 'string') {
      return this.#reference($ref);
    }
    if (Array.isArray(values) || only !== undefined) {
      return oneOfValues(Array.isArray(values) ? values : [only]);
    }
    const choices = anyOf ?? oneOf;
    if (Array.isArray(choices)) {
      return isObject(schema.properties) ? OBJECT : this.#rule(choices.map((each) => this.#value(each)).join(' | '));
    }
    const types = [type ?? []].flat() as string[];
    return types.length === 0 ? ANY : this.#rule(types.map((each) => this.#typed(each, schema)).join(' | '));
  }

  #typed(type: string, schema: JsonObject): string {
    if (type === 'object' && isObject(schema.properties)) {
      return this.#object(schema);
    }
    if (type === 'array' && isObject(schema.items)) {
      const item = this.#value(schema.items);
      return `"[" space ("]" | ${item} ("," space ${item})* space "]")`;
    }
    return TYPES[type] ?? ANY;
  }

  /**
   * A rule for an object: the required properties in the order of the schema, then any number of optional properties.
   */
  #object({ properties, required }: JsonObject): string {
    const entries = Object.entries(properties as JsonObject);
    if (entries.some(([key]) => /[:}]/.test(key))) {
      return OBJECT; // the parser cannot read such keys
    }
    const names = new Set(Array.isArray(required) ? required : []);
    const member = ([key, value]: [string, Json]) => this.#rule(`${literal(key)} ":" space ${this.#value(value)}`);
    const requiredMembers = entries.filter(([key]) => names.has(key)).map(member);
    const optionalMembers = entries.filter(([key]) => !names.has(key)).map(member);
    const other = `(${optionalMembers.join(' | ')})`;
    const others = optionalMembers.length === 0 ? '' : `("," space ${other})*`;
    const members =
      requiredMembers.length === 0 ? `(${other} ${others})?` : `${requiredMembers.join(' "," space ')} ${others}`;
    return entries.length === 0 ? OBJECT : `"{" space ${members} space "}"`;
  }

  #reference(reference: string): string {
    const existing = this.#references.get(reference);
    if (existing !== undefined) {
      return existing;
    }
    const name = `${this.#prefix}-ref-${this.#references.size}`;
    this.#references.set(reference, name);
    const target = targetOf(this.#schema, reference);
    return this.#rule(target === undefined ? ANY : this.#value(target), name);
  }
}

/** A rule for one of these values. Allows any value if one of them cannot be written in Gemma's notation. */
function oneOfValues(values: readonly Json[]): string {
  const texts = values.map(notation);
  return texts.includes(undefined) ? ANY : `(${texts.map((text) => literal(text as string)).join(' | ')})`;
}

function notation(value: Json): string | undefined {
  if (typeof value === 'string') {
    return value.includes(QUOTE) ? undefined : `${QUOTE}${value}${QUOTE}`;
  }
  return typeof value === 'object' && value !== null ? undefined : JSON.stringify(value);
}

function literal(text: string): string {
  const escaped = text.replace(
    /["\\\n\r]/g,
    (character) => ({ '\n': '\\n', '\r': '\\r' })[character] ?? `\\${character}`,
  );
  return `"${escaped}"`;
}
