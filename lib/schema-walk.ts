// Finds the schemas inside a JSON Schema. Everything else in a schema is data.
import { isObject, type Json, type JsonObject } from './json.js';

/** Keywords whose value is a schema. */
const SCHEMAS = new Set(['items', 'additionalItems', 'contains', 'propertyNames', 'not', 'if', 'then', 'else']);
/** Keywords whose value is a list of schemas. */
const LISTS = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
/** Keywords whose value is a schema or a boolean. A boolean stays a boolean. */
const SWITCHES = new Set(['additionalProperties', 'unevaluatedProperties', 'unevaluatedItems']);
/** Keywords whose value is an object of schemas by name. */
const MAPS = new Set(['properties', 'patternProperties', 'dependentSchemas', '$defs', 'definitions']);

/** Applies `change` to each schema directly inside a schema. */
export function mapBelow(schema: JsonObject, change: (schema: Json) => Json): JsonObject {
  return Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, mapKeyword(name, value, change)]));
}

/** The target of a reference within a schema, or undefined if the target does not exist. */
export function targetOf(root: JsonObject, reference: string): Json {
  if (reference === '#') {
    return root;
  }
  let at: Json = root;
  for (const name of namesOf(reference)) {
    at = typeof at === 'object' && at !== null && Object.hasOwn(at, name) ? (at as JsonObject)[name] : undefined;
  }
  return at === root ? undefined : at;
}

/** The names in a JSON Pointer in a URI fragment (RFC 6901, section 6). */
function namesOf(reference: string): string[] {
  if (!reference.startsWith('#/')) {
    return [];
  }
  try {
    const parts = decodeURIComponent(reference).slice(2).split('/');
    return parts.map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
  } catch {
    return []; // a broken percent encoding
  }
}

function mapKeyword(name: string, value: Json, change: (schema: Json) => Json): Json {
  if (LISTS.has(name) || (name === 'items' && Array.isArray(value))) {
    return Array.isArray(value) ? value.map(change) : value;
  }
  if (MAPS.has(name) && isObject(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, schema]) => [key, change(schema)]));
  }
  return SCHEMAS.has(name) || (SWITCHES.has(name) && typeof value !== 'boolean') ? change(value) : value;
}
