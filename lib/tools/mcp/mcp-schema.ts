// What MCP servers give as `inputSchema`, as the JSON Schema of an object.
import { isObject, type Json, type JsonObject, mapBelow } from '../../schema-walk.js';

/** Keywords whose value is any data: null means null there. */
const DATA = new Set(['default', 'const', 'example']);
/** PHP writes an empty object as `[]`. */
const OBJECTS = new Set(['properties', 'patternProperties', 'dependentSchemas', '$defs', 'definitions', 'items']);

/**
 * The schema with `type: "object"` and `properties`, without keywords that are null, and with objects for PHP's empty arrays.
 * Without a schema: of no arguments.
 *
 * @returns a text that says what is wrong if `schema` cannot be read as the schema of an object
 */
export function readInputSchema(schema: unknown): JsonObject | string {
  try {
    const mended = mend(schema ?? {});
    if (!isObject(mended)) {
      return `its \`inputSchema\` is ${kindOf(schema)}`;
    }
    const { type = 'object', properties = {} } = mended;
    return [type].flat().includes('object')
      ? { ...mended, type: 'object', properties }
      : `its \`inputSchema\` is of the type ${JSON.stringify(type)}, not "object"`;
  } catch (error) {
    return `its \`inputSchema\` nests too deeply (${(error as Error).message})`; // a RangeError: the stack is full
  }
}

function mend(schema: Json): Json {
  if (schema === null || isEmptyList(schema)) {
    return {};
  }
  if (!isObject(schema)) {
    return schema;
  }
  const kept = Object.entries(schema)
    .filter(([name, value]) => value !== null || DATA.has(name))
    .map(([name, value]) => [name, OBJECTS.has(name) && isEmptyList(value) ? {} : value]);
  return mapBelow(Object.fromEntries(kept), mend);
}

function isEmptyList(value: Json): boolean {
  return Array.isArray(value) && value.length === 0;
}

/** For messages: `null`, `an array`, `a string`. */
export function kindOf(value: unknown): string {
  if (value === null || value === undefined) {
    return String(value);
  }
  const kind = Array.isArray(value) ? 'array' : typeof value;
  return `${/^[aeiou]/.test(kind) ? 'an' : 'a'} ${kind}`;
}
