// Checks values against JSON Schemas, with ajv.
import { Ajv, type Options, type ValidateFunction } from 'ajv';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { JsonObject } from '../../schema-walk.js';

const OPTIONS: Options = {
  strict: false,
  logger: false,
  validateFormats: false,
  // Division is not exact: 0.07 / 0.01 is 7.000000000000001. A quotient may differ from an integer by 10^-6.
  multipleOfPrecision: 6,
};

/** Keywords that draft 7 does not have. The older form of `items`, a list, is the only other difference between the drafts. */
const NEW_KEYWORD =
  /"(?:prefixItems|dependentRequired|dependentSchemas|unevaluated(?:Properties|Items)|(?:min|max)Contains|\$dynamicRef)"/;

/**
 * @param schema as JSON.parse returns it, without `$schema`
 * @param source the whole schema as JSON, and its `$schema`: they tell the draft
 * @throws Error for a schema that is not valid.
 */
export function compileValidator(schema: object, source: { text: string; $schema: unknown }): ValidateFunction {
  const isNew = String(source.$schema).includes('2020-12') || NEW_KEYWORD.test(source.text);
  // A new instance each time, because an instance keeps every schema that it ever compiled.
  const withFlags = (unicodeRegExp: boolean) =>
    new (isNew ? Ajv2020 : Ajv)({ ...OPTIONS, allErrors: true, unicodeRegExp }).compile(schema);
  try {
    return withFlags(true);
  } catch (error) {
    try {
      return withFlags(false); // /\-/ is an error with the flag `u`, and none without it
    } catch {
      throw error;
    }
  }
}

/** Whether values fit one level of a schema. A schema with references or errors in it fits every value. */
export function quickValidator(schema: JsonObject): (value: unknown) => boolean {
  try {
    return new Ajv2020(OPTIONS).compile(schema);
  } catch {
    return () => true;
  }
}
