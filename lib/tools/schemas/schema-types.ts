// Reads the types and the listed values that the keywords of a schema allow. References and `allOf` are not followed.
import { isObject, type Json, type JsonObject } from '../../json.js';
import { multiplesOf } from './grammar-values.js';

/**
 * For each type, the keywords that constrain only its values. These keywords imply the type of a schema without a
 * `type`.
 */
const KEYWORDS_OF: Readonly<Record<string, readonly string[]>> = {
  string: ['pattern', 'minLength', 'maxLength', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems', 'contains', 'uniqueItems'],
  object: [
    ...['properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames', 'minProperties'],
    ...['maxProperties', 'dependentRequired', 'dependentSchemas'],
  ],
};

/** The types of a schema. Undefined if the schema allows any type. */
export function typesOf({ type, nullable, ...schema }: JsonObject): string[] | undefined {
  if (type === undefined) {
    const meant = Object.entries(KEYWORDS_OF).filter(([, keywords]) =>
      keywords.some((name) => Object.hasOwn(schema, name)),
    );
    return meant.length > 0 ? meant.map(([each]) => each) : undefined;
  }
  const types = [...new Set([type, ...(nullable === true ? ['null'] : [])].flat() as string[])];
  return types.includes('number') ? types.filter((each) => each !== 'integer') : types;
}

/** Whether a schema has a keyword that constrains the values of a type. */
export function hasConstraint(schema: JsonObject): boolean {
  return Object.values(KEYWORDS_OF).some((keywords) => keywords.some((name) => Object.hasOwn(schema, name)));
}

/** The values that a schema lists. Undefined if the schema lists no values. */
export function valuesOf(schema: JsonObject): Json[] | undefined {
  if (Object.hasOwn(schema, 'const')) {
    return [schema.const];
  }
  if (Array.isArray(schema.enum)) {
    return schema.enum;
  }
  const isNumber = typesOf(schema)?.every((type) => type === 'integer' || type === 'number');
  return isNumber && schema.multipleOf !== undefined ? multiplesOf(schema) : undefined;
}

/** The names that the properties of an object may have, if they are listed. */
export function namesIn(propertyNames: Json): string[] | undefined {
  if (propertyNames === false) {
    return [];
  }
  const values = isObject(propertyNames) ? valuesOf(propertyNames) : undefined;
  return values?.filter((value) => typeof value === 'string');
}
