// Reads the `inputSchema` of an MCP tool as the JSON Schema of an object.
import { isObject, type Json, type JsonObject } from '../../json.js';
import { mapBelow } from '../../schema-walk.js';

/** Keywords whose value is data. For these keywords, null is a valid value. */
const DATA_KEYWORDS = new Set(['default', 'const', 'example']);
/** Keywords whose value is an object. PHP writes an empty object as `[]`. */
const OBJECT_KEYWORDS = new Set([
  'properties',
  'patternProperties',
  'dependentSchemas',
  '$defs',
  'definitions',
  'items',
]);

/**
 * Repairs the schema of a tool. Adds `type: "object"` and `properties`, removes keywords that are null, and replaces
 * PHP's empty arrays by objects. A missing schema becomes the schema of an object without properties.
 *
 * @returns the schema, or the reason why `schema` cannot be read as the schema of an object
 */
export function readInputSchema(schema: unknown): JsonObject | string {
  try {
    const repaired = repair(schema ?? {});
    if (!isObject(repaired)) {
      return `its \`inputSchema\` is ${kindOf(schema)}`;
    }
    const { type = 'object', properties = {} } = repaired;
    return [type].flat().includes('object')
      ? { ...repaired, type: 'object', properties }
      : `its \`inputSchema\` is of the type ${JSON.stringify(type)}, not "object"`;
  } catch (error) {
    // The error is a RangeError, because the recursion overflowed the stack.
    return `its \`inputSchema\` nests too deeply (${(error as Error).message})`;
  }
}

function repair(schema: Json): Json {
  if (schema === null || isEmptyList(schema)) {
    return {};
  }
  if (!isObject(schema)) {
    return schema;
  }
  const kept = Object.entries(schema)
    .filter(([name, value]) => value !== null || DATA_KEYWORDS.has(name))
    .map(([name, value]) => [name, OBJECT_KEYWORDS.has(name) && isEmptyList(value) ? {} : value]);
  return mapBelow(Object.fromEntries(kept), repair);
}

function isEmptyList(value: Json): boolean {
  return Array.isArray(value) && value.length === 0;
}

/** The kind of a value, for messages: for example `null`, `an array` or `a string`. */
export function kindOf(value: unknown): string {
  if (value === null || value === undefined) {
    return String(value);
  }
  const kind = Array.isArray(value) ? 'array' : typeof value;
  return `${/^[aeiou]/.test(kind) ? 'an' : 'a'} ${kind}`;
}
