// Simpler forms of a tool's schema, for chat templates that fail on the schema itself. These forms only appear in the
// prompt: the arguments must still follow the whole schema. Each form depends on nothing but the schema, so that a
// cached template stays the same.
import { isObject, type Json, type JsonObject } from '../json.js';
import { mapBelow, targetOf } from '../schema-walk.js';
import type { ToolDefinition } from './renderer.js';

/** The forms of a tool, from the most detailed one to one without parameters. */
export function* schemaForms(tool: ToolDefinition): Generator<ToolDefinition> {
  const { parameters = {}, description = '' } = tool;
  const spelledOut = spellOut(parameters) as JsonObject;
  yield { ...tool, parameters: spelledOut };
  const typed = withOneType(spelledOut);
  const plain = { ...typed, type: 'object', properties: typed.properties ?? {} };
  yield { ...tool, parameters: plain };
  yield { ...tool, parameters: withDescribedProperties(plain) };
  const schema = `The arguments have this JSON Schema: ${JSON.stringify(parameters)}`;
  yield {
    ...tool,
    description: [description, schema].join('\n').trim(),
    parameters: { type: 'object', properties: {} },
  };
}

/**
 * Writes a schema with fewer keywords. The result has no boolean schemas, no lists of types, no tuples, and no arrays
 * without `items`.
 */
function spellOut(schema: Json): Json {
  if (!isObject(schema)) {
    return {};
  }
  const { prefixItems, ...spelled } = mapBelow(withoutImpossible(schema), spellOut) as Record<string, Json>;
  if (spelled.oneOf !== undefined) {
    spelled.anyOf ??= spelled.oneOf;
    delete spelled.oneOf;
  }
  const items = [prefixItems, spelled.items].flat().filter((each) => each !== undefined);
  if (items.length > 1 || Array.isArray(spelled.items)) {
    spelled.items = items.length === 1 ? items[0] : { anyOf: items };
  } else if ([spelled.type].flat().includes('array')) {
    spelled.items = items[0] ?? {};
  }
  return withTypes(spelled);
}

/** Removes properties whose schema is `false`, because such properties must not occur. */
function withoutImpossible(schema: JsonObject): JsonObject {
  const { properties } = schema;
  return isObject(properties)
    ? { ...schema, properties: Object.fromEntries(Object.entries(properties).filter(([, each]) => each !== false)) }
    : schema;
}

function withTypes(schema: JsonObject): JsonObject {
  const { type, enum: values, ...rest } = schema;
  const types = [type].flat();
  if (values !== undefined && types.length > 1) {
    return { ...rest, enum: values };
  }
  if (types.length > 1) {
    const { title, description, default: preset, anyOf: _, ...each } = rest;
    const annotations = { title, description, default: preset };
    return withoutUndefined({ ...annotations, anyOf: types.map((one) => ofType(each, one)) });
  }
  return ofType(schema, types[0]);
}

function ofType(schema: JsonObject, type: Json): JsonObject {
  const { type: _, ...rest } = schema;
  if (type === undefined) {
    return rest;
  }
  const foreign = Object.entries(KEYWORDS).flatMap(([name, words]) => (name === type ? [] : words));
  const remaining = Object.fromEntries(Object.entries(rest).filter(([name]) => !foreign.includes(name)));
  return type === 'null' ? { ...remaining, enum: [null] } : { type, ...remaining };
}

/** Keywords that apply only to values of one type. */
const KEYWORDS: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames'],
  array: ['items', 'minItems', 'maxItems', 'uniqueItems', 'contains'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
};

/**
 * The maximum number of schemas in one form. A form contains the targets of its references, and these may refer to each
 * other endlessly.
 */
const MAX_SCHEMAS = 1000;

/** Gives each value a single type: a reference becomes its target, and a union its first alternative. */
function withOneType(root: JsonObject): JsonObject {
  let schemas = 0;
  const convert = (schema: Json, passed: readonly Json[] = []): JsonObject => {
    if (!isObject(schema) || passed.includes(schema) || ++schemas > MAX_SCHEMAS) {
      return { type: 'any' };
    }
    const { $ref, $defs: _, definitions: __, anyOf, allOf, const: constant, ...rest } = schema;
    const below = (each: Json) => convert(each, [...passed, schema]);
    const merged = [
      ...(typeof $ref === 'string' ? [$ref === '#' ? root : targetOf(root, $ref)] : []),
      ...(Array.isArray(anyOf) ? [firstAlternative(anyOf)] : []),
      ...(Array.isArray(allOf) ? allOf : []),
    ].map(below);
    return mergeTypes([...merged, { ...mapBelow(rest, below), ...(constant !== undefined && { enum: [constant] }) }]);
  };
  return convert(root);
}

/** Joins schemas that apply to the same value. Later keywords override earlier ones, but all properties are kept. */
function mergeTypes(schemas: readonly JsonObject[]): JsonObject {
  const one: JsonObject = Object.assign({}, ...schemas);
  const type = schemas.map((each) => each.type).findLast((each) => each !== undefined && each !== 'any');
  const properties = Object.assign({}, ...schemas.map((each) => each.properties));
  return { ...one, type: type ?? typeOf(one), ...(one.properties !== undefined && { properties }) };
}

/** The first alternative that allows more than null. */
function firstAlternative(alternatives: readonly Json[]): Json {
  const isNull = (each: Json) => isObject(each) && (each.const === null || JSON.stringify(each.enum) === '[null]');
  return alternatives.find((each) => !isNull(each)) ?? alternatives[0];
}

function typeOf(schema: JsonObject): string {
  if (Array.isArray(schema.enum)) {
    const types = new Set(schema.enum.filter((each) => each !== null).map(typeOfValue));
    return types.size === 1 ? ([...types][0] as string) : 'any';
  }
  const [type] = Object.entries(KEYWORDS).find(([, words]) => words.some((word) => Object.hasOwn(schema, word))) ?? [];
  return type ?? 'any';
}

function typeOfValue(value: unknown): string {
  return Array.isArray(value) ? 'array' : typeof value;
}

/**
 * Moves the schema of each list, object or union into the property's description. Every chat template can write the
 * simple types.
 */
function withDescribedProperties(schema: JsonObject): JsonObject {
  const properties = Object.entries((schema.properties ?? {}) as JsonObject).map(([name, each]) => {
    const { type, description, ...rest } = each as JsonObject;
    const words = [description, `JSON Schema: ${JSON.stringify({ type, ...rest })}`].filter(Boolean).join(' ');
    return [name, SIMPLE_TYPES.has(type) ? each : { description: words }];
  });
  return withoutUndefined({
    type: 'object',
    description: schema.description,
    properties: Object.fromEntries(properties),
    required: schema.required,
  });
}

const SIMPLE_TYPES: ReadonlySet<Json> = new Set(['string', 'number', 'integer', 'boolean']);

function withoutUndefined(schema: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));
}
