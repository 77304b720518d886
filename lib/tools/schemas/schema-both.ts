// The schema of the values that two schemas allow. What cannot be said of both is left out: the result then allows more.
import { isObject, type Json, type JsonObject } from '../../schema-walk.js';

/**
 * @param a without references and alternatives
 * @param b likewise
 */
export function bothSchemas(a: JsonObject, b: JsonObject): JsonObject {
  const joined: Record<string, Json> = { ...a };
  for (const [name, value] of Object.entries(b)) {
    joined[name] = Object.hasOwn(a, name) ? joinKeyword(name, a[name], value) : value;
  }
  return { ...joined, ...propertiesOfBoth(a, b), ...patternsOfBoth(a, b) };
}

/** Further patterns stand in `allOf`, and nothing else does. */
function patternsOfBoth(a: JsonObject, b: JsonObject): JsonObject {
  const patterns = [...new Set([...patternsOf(a), ...patternsOf(b)])];
  const [pattern, ...more] = patterns;
  return {
    ...(pattern !== undefined && { pattern }),
    ...(more.length > 0 && { allOf: more.map((each) => ({ pattern: each })) }),
  };
}

/** All patterns of a schema that was joined. */
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

/** What the first says stands, for keywords that cannot be joined. */
function joinKeyword(name: string, a: Json, b: Json): Json {
  return (JOINS[name] as ((a: Json, b: Json) => Json) | undefined)?.(a, b) ?? a;
}

/** Joined once it is looked at: references may lead in circles. */
function all(a: Json, b: Json): Json {
  if (a === true || isSame(a, b)) {
    return b;
  }
  return b === true ? a : { allOf: [a, b] };
}

/** Integers are numbers. */
function commonTypes(a: readonly Json[], b: readonly Json[]): Json {
  const allows = (types: readonly Json[], type: Json) =>
    types.includes(type) || (type === 'integer' && types.includes('number'));
  return [...new Set([...a.filter((type) => allows(b, type)), ...b.filter((type) => allows(a, type))])];
}

/** What one says of all other properties holds for those that only the other one knows. */
function propertiesOfBoth(a: JsonObject, b: JsonObject): JsonObject {
  const mine = isObject(a.properties) ? a.properties : {};
  const others = isObject(b.properties) ? b.properties : {};
  const names = [...new Set([...Object.keys(mine), ...Object.keys(others)])];
  const properties = names.map((name) => [name, all(propertyOf(a, name), propertyOf(b, name))]);
  return names.length > 0 ? { properties: Object.fromEntries(properties) } : {};
}

/** What an object's schema says of one property, and of its value. */
export function propertyOf(schema: JsonObject, name: string): Json {
  const { properties, patternProperties, additionalProperties = true } = schema;
  const named = isObject(properties) && Object.hasOwn(properties, name) ? [properties[name]] : [];
  const patterns = isObject(patternProperties) ? Object.entries(patternProperties) : [];
  const said = [...named, ...patterns.filter(([pattern]) => matches(pattern, name)).map(([, each]) => each)];
  return said.length > 0 ? said.reduce(all) : additionalProperties;
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
