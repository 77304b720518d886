// A JSON Schema in words that llama.cpp's converter to grammars has. It allows nothing that the schema itself does not allow;
// values are checked against that.

import { isObject, type Json, type JsonObject, mapBelow, targetOf } from '../schema-walk.js';

/** Character classes that grammars lack. */
const CLASSES: Readonly<Record<string, string>> = { d: '0-9', w: 'A-Za-z0-9_' };

/** @param given valid, as JSON.parse has it; it is not changed */
export function schemaForGrammar(given: JsonObject): JsonObject {
  const schema = withOpenRoot(given);
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

/** What may stand beside a reference that is the whole schema. */
const BESIDE = new Set(['$defs', 'definitions', 'title', 'description', 'type']);

/** Forms that write arguments one by one look for their names in the root: what that refers to stands there itself. */
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

/** @param onSelf gives the name of the whole schema, which `#` stands for */
function convert(schema: Json, onSelf: () => string): Json {
  if (schema === true) {
    return {}; // any value: the same
  }
  if (!isObject(schema)) {
    return schema;
  }
  const converted: JsonObject = {
    ...mapBelow(schema, (each) => convert(each, onSelf)),
    ...(schema.$ref === '#' && { $ref: onSelf() }),
    ...(typeof schema.pattern === 'string' && { pattern: withoutClasses(schema.pattern) }),
  };
  const { items: _, ...tuple } = converted;
  return Array.isArray(schema.prefixItems) ? tuple : converted; // `items` would win over them: without it tuples end there
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
