// Combines two schemas to a schema of the values that both allow. If no schema can express this set, the result allows
// more values.
import { isObject, type Json, type JsonObject } from '../../json.js';

/** The first level of both schemas must not contain references or alternatives (`anyOf`, `oneOf`). */
export function intersectSchemas(a: JsonObject, b: JsonObject): JsonObject {
  const joined: Record<string, Json> = { ...a };
  for (const [name, value] of Object.entries(b)) {
    joined[name] = Object.hasOwn(a, name) ? joinKeyword(name, a[name], value) : value;
  }
  return { ...joined, ...propertiesOfBoth(a, b), ...patternsOfBoth(a, b) };
}

/** Puts the first pattern into `pattern`, and all other patterns into `allOf`. This `allOf` contains nothing else. */
function patternsOfBoth(a: JsonObject, b: JsonObject): JsonObject {
  const patterns = [...new Set([...patternsOf(a), ...patternsOf(b)])];
  const [pattern, ...more] = patterns;
  return {
    ...(pattern !== undefined && { pattern }),
    ...(more.length > 0 && { allOf: more.map((each) => ({ pattern: each })) }),
  };
}

/** All patterns of a schema that {@link intersectSchemas} made. */
export function patternsOf({ pattern, allOf }: JsonObject): string[] {
  const more = Array.isArray(allOf) ? allOf.flatMap((each) => patternsOf(each as JsonObject)) : [];
  return typeof pattern === 'string' ? [pattern, ...more] : more;
}

type Join = (a: never, b: never) => Json;

const larger: Join = (a: number, b: number) => Math.max(a, b);
const smaller: Join = (a: number, b: number) => Math.min(a, b);

const JOINS: Readonly<Record<string, Join>> = {
  minimum: larger,
  exclusiveMinimum: larger,
  minLength: larger,
  minItems: larger,
  minProperties: larger,
  maximum: smaller,
  exclusiveMaximum: smaller,
  maxLength: smaller,
  maxItems: smaller,
  maxProperties: smaller,
  type: (a: Json, b: Json) => commonTypes([a].flat(), [b].flat()),
  enum: (a: Json[], b: Json[]) => a.filter((value) => b.some((other) => isSame(value, other))),
  required: (a: string[], b: string[]) => [...new Set([...a, ...b])],
  items: all,
  additionalProperties: all,
  propertyNames: all,
  patternProperties: bothMaps,
  prefixItems: (a: Json[], b: Json[]) => {
    const [long, short] = a.length < b.length ? [b, a] : [a, b];
    return long.map((item, index) => (index < short.length ? all(item, short[index]) : item));
  },
};

/** Joins the two values of a keyword. If that is impossible, uses the value of the first schema. */
function joinKeyword(name: string, a: Json, b: Json): Json {
  return (JOINS[name] as ((a: Json, b: Json) => Json) | undefined)?.(a, b) ?? a;
}

/** Returns an `allOf` of two schemas. Does not join the schemas now, because their references may be circular. */
function all(a: Json, b: Json): Json {
  if (a === true || isSame(a, b)) {
    return b;
  }
  return b === true ? a : { allOf: [a, b] };
}

/** The types that both lists allow. `number` includes `integer`. */
function commonTypes(a: readonly Json[], b: readonly Json[]): Json {
  const allows = (types: readonly Json[], type: Json) =>
    types.includes(type) || (type === 'integer' && types.includes('number'));
  return [...new Set([...a.filter((type) => allows(b, type)), ...b.filter((type) => allows(a, type))])];
}

/**
 * Joins the properties. If only one schema names a property, the value must also fit `additionalProperties` of the
 * other schema.
 */
function propertiesOfBoth(a: JsonObject, b: JsonObject): JsonObject {
  const ofA = isObject(a.properties) ? a.properties : {};
  const ofB = isObject(b.properties) ? b.properties : {};
  const names = [...new Set([...Object.keys(ofA), ...Object.keys(ofB)])];
  const properties = names.map((name) => [name, all(propertyOf(a, name), propertyOf(b, name))]);
  return names.length > 0 ? { properties: Object.fromEntries(properties) } : {};
}

/**
 * The schema of one property: its own schema joined with those of matching patterns. If there are no such schemas, the
 * schema of additional properties.
 */
export function propertyOf(schema: JsonObject, name: string): Json {
  const { properties, patternProperties, additionalProperties = true } = schema;
  const named = isObject(properties) && Object.hasOwn(properties, name) ? [properties[name]] : [];
  const patterns = isObject(patternProperties) ? Object.entries(patternProperties) : [];
  const schemas = [...named, ...patterns.filter(([pattern]) => matches(pattern, name)).map(([, each]) => each)];
  return schemas.length > 0 ? schemas.reduce(all) : additionalProperties;
}

function matches(pattern: string, name: string): boolean {
  try {
    return new RegExp(pattern, 'u').test(name);
  } catch {
    return new RegExp(pattern).test(name);
  }
}

function bothMaps(a: JsonObject, b: JsonObject): JsonObject {
  const joined = Object.entries(b).map(([name, schema]) => [
    name,
    Object.hasOwn(a, name) ? all(a[name], schema) : schema,
  ]);
  return { ...a, ...Object.fromEntries(joined) };
}

function isSame(a: Json, b: Json): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
