// Rewrites a JSON Schema for llama.cpp's converter to grammars. The result uses only keywords that the converter
// supports, in combinations that it reads correctly. Constraints that these keywords cannot express are left out. After
// generation, values are checked against the whole schema.
import { isObject, type Json, type JsonObject } from '../../json.js';
import { targetOf } from '../../schema-walk.js';
import {
  integerForGrammar,
  MAX_REPETITIONS,
  numberForGrammar,
  numberOr,
  stringForGrammar,
  Unsatisfiable,
} from './grammar-values.js';
import type { PatternGrammar } from './pattern-grammar.js';
import { intersectSchemas, propertyOf } from './schema-intersection.js';
import { hasConstraint, namesIn, typesOf, valuesOf } from './schema-types.js';
import { quickValidator } from './validator.js';

/** How much of a schema the grammar enforces. */
export interface GrammarDetail {
  patterns: boolean;
  /** Number of levels of nested schemas. Deeper levels allow any value. */
  depth: number;
  /**
   * Maximum number of named optional properties of one object. The work of llama.cpp's converter grows with the square
   * of this number.
   */
  entries: number;
  /** The largest `minItems` of an array that the grammar enforces. */
  items: number;
}

/** Maximum number of nodes of a schema. The grammar of a larger schema would take too much time. */
const MAX_NODES = 10_000;
/** Maximum length of a chain of references to references, or of `allOf` inside `allOf`. */
const MAX_HOPS = 64;

/** The schema has more than {@link MAX_NODES} nodes. */
export class TooLarge extends Error {}

/**
 * Rewrites a schema for the converter. Returns {@link Unsatisfiable} if no value fits the schema.
 *
 * @param schema a valid schema as JSON.parse returns it. This object is not changed.
 * @param isArguments whether the value must be an object, even if the schema allows other types
 * @throws TooLarge
 */
export async function schemaForGrammar(
  schema: JsonObject,
  detail: GrammarDetail,
  isArguments = false,
): Promise<JsonObject | Unsatisfiable> {
  const empty = new Set<string>(); // references that no value fits
  const patternGrammar = detail.patterns ? await patternGrammarFor(schema) : undefined;
  for (;;) {
    const sizeBefore = empty.size;
    const conversion = new Conversion(schema, detail, empty, patternGrammar);
    const converted = conversion.convert(isArguments);
    if (empty.size === sizeBefore) {
      return converted;
    }
  }
}

/** Loads the code for patterns only if a schema has one, because loading takes more than 100 ms. */
async function patternGrammarFor(schema: JsonObject): Promise<PatternGrammar | undefined> {
  if (!JSON.stringify(schema).includes('"pattern"')) {
    return undefined;
  }
  const { PatternGrammar } = await import('./pattern-grammar.js');
  return new PatternGrammar();
}

/** The constraints of one value. The value must fit `base`, and also one schema of each list in `choices`. */
interface Parts {
  base: JsonObject;
  choices: Json[][];
}

class Conversion {
  readonly #root: JsonObject;
  readonly #detail: GrammarDetail;
  readonly #empty: Set<string>;
  readonly #patternGrammar: PatternGrammar | undefined;
  /** The converted targets of references, by name. */
  readonly #definitions: Record<string, JsonObject> = {};
  readonly #names = new Map<string, string>();
  #nodes = 0;

  constructor(root: JsonObject, detail: GrammarDetail, empty: Set<string>, patternGrammar: PatternGrammar | undefined) {
    this.#patternGrammar = patternGrammar;
    this.#root = root;
    this.#detail = detail;
    this.#empty = empty;
  }

  /** @param isArguments whether the value must be an object, even if the schema allows other types */
  convert(isArguments: boolean): JsonObject | Unsatisfiable {
    const schema = isArguments ? { allOf: [this.#root, { type: 'object' }] } : this.#root;
    // Some reply formats write each argument separately, and look for the names of arguments in the root. So replace a
    // reference in the root by its definition.
    const converted = this.#inline(schema, 0);
    const isRecursive = Object.keys(this.#definitions).length > 0;
    return converted instanceof Unsatisfiable || !isRecursive ? converted : { ...converted, $defs: this.#definitions };
  }

  #schema(schema: Json, depth: number): JsonObject | Unsatisfiable {
    if (schema === false) {
      return new Unsatisfiable('a schema is `false`');
    }
    if (!isObject(schema) || depth > this.#detail.depth) {
      return {};
    }
    const { $ref } = schema;
    return typeof $ref === 'string' && Object.keys(schema).every((name) => name === '$ref' || ANNOTATIONS.has(name))
      ? this.#reference($ref)
      : this.#inline(schema, depth);
  }

  #inline(schema: JsonObject, depth: number): JsonObject | Unsatisfiable {
    if (++this.#nodes > MAX_NODES) {
      throw new TooLarge();
    }
    const parts = this.#parts(schema, 0);
    if (parts instanceof Unsatisfiable) {
      return parts;
    }
    const { description } = schema;
    const converted = parts.choices.length > 0 ? this.#choice(parts, depth) : this.#typed(parts.base, depth);
    return converted instanceof Unsatisfiable || typeof description !== 'string'
      ? converted
      : { ...converted, description };
  }

  #reference(reference: string): JsonObject | Unsatisfiable {
    if (this.#empty.has(reference)) {
      return new Unsatisfiable(`nothing fits \`${reference}\``);
    }
    const target = targetOf(this.#root, reference);
    if (target === undefined) {
      return {}; // only the validator follows references by `$anchor` or `$id`
    }
    const existing = this.#names.get(reference);
    if (existing !== undefined) {
      return { $ref: `#/$defs/${existing}` };
    }
    const name = this.#freeName(reference);
    this.#names.set(reference, name);
    const converted = isObject(target) ? this.#inline(target, 1) : this.#schema(target, 1);
    if (converted instanceof Unsatisfiable) {
      this.#empty.add(reference);
      return converted;
    }
    this.#definitions[name] = converted;
    return { $ref: `#/$defs/${name}` };
  }

  #freeName(reference: string): string {
    const wanted = (reference.split('/').at(-1) as string).replace(/[^A-Za-z0-9]+/g, '-').replace(/^-$/, 'self');
    const taken = new Set([...this.#names.values()].map((name) => name.toLowerCase()));
    let name = wanted;
    for (let count = 2; taken.has(name.toLowerCase()); count++) {
      name = `${wanted}-${count}`;
    }
    return name;
  }

  /** Joins a schema with the targets of its references and with its `allOf`. */
  #parts(schema: JsonObject, hops: number): Parts | Unsatisfiable {
    const { $ref, allOf, anyOf, oneOf, ...own } = withTuples(schema);
    let base: JsonObject = Object.fromEntries(Object.entries(own).filter(([name]) => !ANNOTATIONS.has(name)));
    const choices = [anyOf, oneOf].filter((each) => Array.isArray(each));
    const target = typeof $ref === 'string' ? targetOf(this.#root, $ref) : undefined;
    const others = [...(target === undefined ? [] : [target]), ...(Array.isArray(allOf) ? allOf : [])];
    if (hops >= MAX_HOPS && others.length > 0) {
      return new Unsatisfiable('a reference leads back to itself');
    }
    for (const other of others) {
      const parts = other === false ? new Unsatisfiable('a schema is `false`') : this.#partsOf(other, hops + 1);
      if (parts instanceof Unsatisfiable) {
        return parts;
      }
      base = intersectSchemas(base, parts.base);
      choices.push(...parts.choices);
    }
    return { base, choices };
  }

  #partsOf(schema: Json, hops: number): Parts | Unsatisfiable {
    return isObject(schema) ? this.#parts(schema, hops) : { base: {}, choices: [] };
  }

  /**
   * Adds the keywords beside alternatives to each alternative, because the converter ignores such keywords elsewhere.
   */
  #choice({ base, choices: [first = [], ...rest] }: Parts, depth: number): JsonObject | Unsatisfiable {
    const shared = [...(Object.keys(base).length > 0 ? [base] : []), ...rest.map((anyOf) => ({ anyOf }))];
    const converted = first.map((each) =>
      this.#schema(shared.length > 0 ? { allOf: [each, ...shared] } : each, depth + 1),
    );
    return unionOf(converted);
  }

  #typed(schema: JsonObject, depth: number): JsonObject | Unsatisfiable {
    const values = valuesOf(schema);
    const types = typesOf(schema);
    if (types?.length === 0) {
      return new Unsatisfiable('its types exclude each other');
    }
    if (values !== undefined && values.length <= this.#detail.entries * 10) {
      return enumOf(schema, values, types);
    }
    if (types === undefined || (types.length > 1 && !hasConstraint(schema))) {
      return types === undefined ? {} : { type: types };
    }
    return unionOf(types.map((type) => this.#ofType(type, schema, depth)));
  }

  #ofType(type: string, schema: JsonObject, depth: number): JsonObject | Unsatisfiable {
    switch (type) {
      case 'integer':
        return integerForGrammar(schema);
      case 'number':
        return numberForGrammar(schema);
      case 'string':
        return stringForGrammar(schema, this.#patternGrammar);
      case 'array':
        return this.#array(schema, depth + 1);
      case 'object':
        return this.#object(schema, depth + 1);
      default:
        return { type };
    }
  }

  #array(schema: JsonObject, depth: number): JsonObject | Unsatisfiable {
    const prefix = Array.isArray(schema.prefixItems) ? schema.prefixItems : [];
    const min = numberOr(schema.minItems, 0);
    let max = numberOr(schema.maxItems, Number.POSITIVE_INFINITY);
    const items: JsonObject[] = [];
    for (const each of [...prefix, schema.items ?? true]) {
      const item = this.#schema(each, depth);
      if (item instanceof Unsatisfiable) {
        max = Math.min(max, items.length);
        break;
      }
      items.push(item);
    }
    if (min > max) {
      return new Unsatisfiable('an array must have more items than it may have');
    }
    if (prefix.length === 0 || max === 0) {
      return {
        type: 'array',
        items: items[0] ?? {},
        ...(min > 0 && min <= this.#detail.items && { minItems: min }),
        ...(max <= MAX_REPETITIONS && { maxItems: max }),
      };
    }
    // The converter supports only tuples of a fixed length.
    const length = Math.min(Math.max(prefix.length, min), max);
    const more = Math.min(length, prefix.length + this.#detail.items) - prefix.length;
    const rest = Array.from({ length: Math.max(0, more) }, () => items.at(-1) as JsonObject);
    return { type: 'array', prefixItems: [...items.slice(0, Math.min(length, prefix.length)), ...rest] };
  }

  #object(schema: JsonObject, depth: number): JsonObject | Unsatisfiable {
    const required = new Set(Array.isArray(schema.required) ? (schema.required as string[]) : []);
    const most = numberOr(schema.maxProperties, Number.POSITIVE_INFINITY);
    if (required.size > most) {
      return new Unsatisfiable('an object must have more properties than it may have');
    }
    const properties: Record<string, JsonObject> = {};
    const allowed = namesIn(schema.propertyNames);
    let isClosed = required.size === most || allowed !== undefined;
    let optional = 0;
    for (const name of new Set([
      ...Object.keys((schema.properties ?? {}) as JsonObject),
      ...required,
      ...(allowed ?? []),
    ])) {
      const value = this.#schema((allowed?.includes(name) ?? true) && propertyOf(schema, name), depth);
      const isRequired = required.has(name);
      if (value instanceof Unsatisfiable && isRequired) {
        return new Unsatisfiable(`the property \`${name}\` must be there, and ${value.reason}`);
      }
      isClosed ||= value instanceof Unsatisfiable; // an open object would allow the name as an additional property
      const isNamed = isRequired || (required.size < most && ++optional <= this.#detail.entries);
      if (isNamed && !(value instanceof Unsatisfiable)) {
        properties[name] = value;
      }
    }
    const others = !isClosed && (optional > this.#detail.entries || this.#otherProperties(schema, depth));
    return {
      type: 'object',
      ...(Object.keys(properties).length > 0 && { properties }),
      ...(required.size > 0 && { required: [...required] }),
      ...((others !== true || Object.keys(properties).length > 0) && { additionalProperties: others }),
    };
  }

  /** The schema of properties without a name in `properties`. `true` allows any value. */
  #otherProperties(schema: JsonObject, depth: number): Json {
    const { properties, additionalProperties, patternProperties } = schema;
    const patterns = isObject(patternProperties) ? Object.values(patternProperties) : [];
    if (isObject(properties) && (additionalProperties === undefined || patterns.length > 0)) {
      return false; // the converter does the same, so that the model writes only the named properties
    }
    const converted = unionOf([...patterns, additionalProperties ?? true].map((each) => this.#schema(each, depth)));
    return converted instanceof Unsatisfiable ? false : Object.keys(converted).length === 0 || converted;
  }
}

/**
 * Keywords that constrain nothing, and keywords that other code reads. All of these keywords are removed from schemas.
 */
const ANNOTATIONS = new Set([
  ...['$schema', '$id', '$anchor', '$comment', '$defs', 'definitions', 'title', 'description', 'default', 'examples'],
  ...['deprecated', 'readOnly', 'writeOnly'],
]);

function enumOf(
  schema: JsonObject,
  values: readonly Json[],
  types: readonly string[] | undefined,
): JsonObject | Unsatisfiable {
  const { enum: _, const: __, ...rest } = schema;
  const fitting = values.filter(quickValidator(rest));
  const type = types?.length === 1 ? { type: types[0] } : {};
  if (fitting.length === 0) {
    return new Unsatisfiable('none of its listed values fits its other keywords');
  }
  return fitting.length === 1 ? { ...type, const: fitting[0] } : { ...type, enum: fitting };
}

/** The schema of values that fit one of several schemas. */
function unionOf(converted: readonly (JsonObject | Unsatisfiable)[]): JsonObject | Unsatisfiable {
  const possible = converted.filter((each) => !(each instanceof Unsatisfiable));
  const distinct = [...new Map(possible.map((each) => [JSON.stringify(each), each])).values()];
  const [first = converted[0] ?? new Unsatisfiable('it has no alternatives'), ...more] = distinct;
  if (distinct.some((each) => Object.keys(each).length === 0)) {
    return {};
  }
  return more.length === 0 ? first : { anyOf: distinct };
}

/** Rewrites tuples of drafts before 2020-12. These drafts have the list of a tuple's items in `items`. */
function withTuples(schema: JsonObject): JsonObject {
  if (!Array.isArray(schema.items)) {
    return schema;
  }
  const { items, additionalItems, ...rest } = schema;
  return { ...rest, prefixItems: items, ...(additionalItems !== undefined && { items: additionalItems }) };
}
