// A JSON Schema as the model is told it: the program's own, in a form that chat templates and the addon take.
import { isObject, type Json, type JsonObject, mapBelow, targetOf } from '../../schema-walk.js';

/** Brackets in brackets: the addon takes 64, and tools have some around their schemas. */
const MAX_DEPTH = 56;

/** @param schema valid, as JSON.parse has it; it is not changed */
export function shownSchema(schema: JsonObject): JsonObject {
  return cut(withoutTrue(withOpenRoot(schema)), MAX_DEPTH) as JsonObject;
}

/** What may stand beside a reference that is the whole schema. */
const BESIDE = new Set(['$defs', 'definitions', 'title', 'description', 'type']);

/** Chat templates look for names of arguments in the root: what the root refers to stands there itself. */
function withOpenRoot(schema: JsonObject): JsonObject {
  const { $ref: _, ...beside } = schema;
  if (!Object.keys(beside).every((name) => BESIDE.has(name))) {
    return schema; // references may lead there
  }
  const seen = new Set<Json>();
  let root: Json = schema;
  while (isObject(root) && typeof root.$ref === 'string' && !seen.has(root)) {
    seen.add(root);
    root = targetOf(schema, root.$ref);
  }
  if (!isObject(root) || seen.has(root) || root === schema) {
    return schema;
  }
  const { $defs, definitions } = schema;
  return {
    ...beside,
    ...root,
    ...($defs !== undefined && { $defs }),
    ...(definitions !== undefined && { definitions }),
  };
}

/** Any value is `{}`: chat templates look into each schema. */
function withoutTrue(schema: Json): Json {
  return schema === true ? {} : isObject(schema) ? mapBelow(schema, withoutTrue) : schema;
}

function cut(value: Json, levels: number): Json {
  if (typeof value !== 'object' || value === null) {
    return value;
  }
  if (levels === 0) {
    return Array.isArray(value) ? [] : {};
  }
  return Array.isArray(value)
    ? value.map((each) => cut(each, levels - 1))
    : Object.fromEntries(Object.entries(value).map(([name, each]) => [name, cut(each, levels - 1)]));
}
