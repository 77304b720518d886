// Makes the form of a JSON Schema that the prompt shows to the model. Chat templates accept this form, and so does the
// addon.
import { isObject, type Json, type JsonObject } from '../../json.js';
import { mapBelow, targetOf } from '../../schema-walk.js';

/** Maximum nesting of brackets. The addon accepts 64 levels, and some of these levels surround the schema of a tool. */
const MAX_DEPTH = 56;

/** @param schema a valid schema as JSON.parse returns it. This object is not changed. */
export function shownSchema(schema: JsonObject): JsonObject {
  return cut(withoutTrue(withOpenRoot(schema)), MAX_DEPTH) as JsonObject;
}

/** If any other keyword is beside the root's `$ref`, withOpenRoot() does not replace the reference. */
const BESIDE = new Set(['$defs', 'definitions', 'title', 'description', 'type']);

/**
 * Replaces a reference in the root by its definition, because chat templates look for the names of arguments in the
 * root.
 */
function withOpenRoot(schema: JsonObject): JsonObject {
  const { $ref: _, ...beside } = schema;
  if (!Object.keys(beside).every((name) => BESIDE.has(name))) {
    // The definition could overwrite a keyword that is not in the set, and other references may point into that
    // keyword.
    return schema;
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

/** Writes `{}` for `true`. Both mean the same, but chat templates expect objects as schemas. */
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
