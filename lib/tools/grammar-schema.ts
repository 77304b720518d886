// A JSON Schema in words that llama.cpp's converter to grammars has. It allows nothing that the schema itself does not allow;
// values are checked against that.

type Json = unknown;
type JsonObject = Readonly<Record<string, Json>>;

/** Keywords whose value is a schema, a list of schemas, or schemas by name. */
const SCHEMAS = new Set(['items', 'additionalItems', 'contains', 'propertyNames', 'not', 'if', 'then', 'else']);
const LISTS = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems']);
const MAPS = new Set(['properties', 'patternProperties', 'dependentSchemas', '$defs', 'definitions']);

/** Character classes that grammars lack. */
const CLASSES: Readonly<Record<string, string>> = { d: '0-9', w: 'A-Za-z0-9_' };

/** @param schema valid, as JSON.parse has it; it is not changed */
export function schemaForGrammar(schema: JsonObject): JsonObject {
  const self = freeName((schema.$defs ?? {}) as JsonObject);
  let isRecursive = false;
  const onSelf = () => {
    isRecursive = true;
    return `#/$defs/${self}`;
  };
  const converted = convert(schema, onSelf) as JsonObject;
  return isRecursive
    ? { ...converted, $defs: { ...(converted.$defs as JsonObject | undefined), [self]: converted } }
    : converted;
}

/** @param onSelf gives the name of the whole schema, which `#` stands for */
function convert(schema: Json, onSelf: () => string): Json {
  if (schema === true) {
    return {}; // any value: the same
  }
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) {
    return schema;
  }
  const isTuple = Array.isArray((schema as JsonObject).prefixItems);
  const entries = Object.entries(schema).flatMap(([name, value]): [string, Json][] => {
    if (name === 'items' && isTuple) {
      return []; // it would win over `prefixItems`: without it tuples end there
    }
    return [[name, convertKeyword(name, value, onSelf)]];
  });
  return Object.fromEntries(entries);
}

function convertKeyword(name: string, value: Json, onSelf: () => string): Json {
  const each = (schema: Json) => convert(schema, onSelf);
  if (name === '$ref' && value === '#') {
    return onSelf();
  }
  if (name === 'pattern' && typeof value === 'string') {
    return withoutClasses(value);
  }
  if (LISTS.has(name) || (name === 'items' && Array.isArray(value))) {
    return Array.isArray(value) ? value.map(each) : value;
  }
  if (MAPS.has(name) && typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, schema]) => [key, each(schema)]));
  }
  return SCHEMAS.has(name) || (name === 'additionalProperties' && typeof value !== 'boolean') ? each(value) : value;
}

/** `\d` and `\w` in a regular expression, written out. */
function withoutClasses(pattern: string): string {
  let isInBrackets = false;
  return pattern.replace(/\\(.)|[[\]]/gsu, (found, escaped?: string) => {
    const characters = escaped === undefined ? undefined : CLASSES[escaped];
    if (characters !== undefined) {
      return isInBrackets ? characters : `[${characters}]`;
    }
    isInBrackets = found === '[' || (isInBrackets && found !== ']');
    return found;
  });
}

function freeName(taken: JsonObject): string {
  let name = 'self';
  while (Object.hasOwn(taken, name)) {
    name += '_';
  }
  return name;
}
