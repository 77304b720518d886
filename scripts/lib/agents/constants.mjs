// Makes schemas that only one value matches, so that a model whose replies make no sense writes valid JSON.

/**
 * Returns a tool that can be called only with these arguments, and a constant for each other required argument.
 *
 * @param {import('llama-headstart').Tool} tool
 * @param {Record<string, unknown>} input
 */
export function constantCall(tool, input) {
  const { inputSchema } = tool;
  return { ...tool, inputSchema: onlyConstants(inputSchema, input) };
}

/**
 * Returns the format of a reply that has only one form.
 *
 * @param {any} schema the schema that the client asks for; undefined if the reply may be any text
 */
export function constantReply(schema) {
  const constant = schema?.type === 'object' ? onlyConstants(schema) : { const: 'Done.' };
  return { type: /** @type {const} */ ('json'), schema: constant };
}

/** @param {any} schema of an object @param {Record<string, unknown>} [given] values by the names of properties */
function onlyConstants(schema, given = {}) {
  const names = [...new Set([...Object.keys(given), ...(schema?.required ?? [])])];
  const properties = names.map((name) => [name, { const: given[name] ?? constantOf(schema?.properties?.[name]) }]);
  return { type: 'object', properties: Object.fromEntries(properties), required: names, additionalProperties: false };
}

/** @param {any} schema @returns {unknown} a value that matches a simple schema */
function constantOf(schema = {}) {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (alternatives !== undefined) return constantOf(alternatives[0]);
  switch (Array.isArray(schema.type) ? schema.type[0] : schema.type) {
    case 'object': {
      const names = schema.required ?? [];
      return Object.fromEntries(names.map((name) => [name, constantOf(schema.properties?.[name])]));
    }
    case 'array':
      return Array.from({ length: schema.minItems ?? 0 }, () => constantOf(schema.items));
    case 'integer':
    case 'number':
      return schema.minimum ?? 1;
    case 'boolean':
      return false;
    case 'null':
      return null;
    default:
      return 'Notes';
  }
}
