// Checks values against JSON Schemas, with ajv.
import { createRequire } from 'node:module';
import type { Options, ValidateFunction } from 'ajv';
import type { JsonObject } from '../../json.js';

const require = createRequire(import.meta.url);
// Ajv is loaded at its first use, because loading takes about 70 ms.
const draft7 = () => (require('ajv') as typeof import('ajv')).Ajv;
const draft2020 = () => (require('ajv/dist/2020.js') as typeof import('ajv/dist/2020.js')).Ajv2020;

const OPTIONS: Options = {
  strict: false,
  logger: false,
  validateFormats: false,
  // Division is not exact: 0.07 / 0.01 is 7.000000000000001. So a quotient may differ from an integer by 10^-6.
  multipleOfPrecision: 6,
};

/**
 * Matches keywords that draft 7 does not have. The only other difference: draft 7 writes tuples as a list in `items`.
 */
const NEW_KEYWORD =
  /"(?:prefixItems|dependentRequired|dependentSchemas|unevaluated(?:Properties|Items)|(?:min|max)Contains|\$dynamicRef)"/;

/**
 * @param schema the schema as JSON.parse returns it, without `$schema`
 * @param source the whole schema as JSON text, and its `$schema`. Both show which draft the schema uses.
 * @throws Error if the schema is invalid
 */
export function compileValidator(schema: object, source: { text: string; $schema: unknown }): ValidateFunction {
  const isNew = String(source.$schema).includes('2020-12') || NEW_KEYWORD.test(source.text);
  const Draft = isNew ? draft2020() : draft7();
  // Use a new instance each time, because an instance keeps every schema that it ever compiled.
  const withFlags = (unicodeRegExp: boolean) =>
    new Draft({ ...OPTIONS, allErrors: true, unicodeRegExp }).compile(schema);
  try {
    return withFlags(true);
  } catch (error) {
    try {
      return withFlags(false); // /\-/ is an error with the flag `u`, and valid without it
    } catch {
      throw error;
    }
  }
}

/** Returns a check for one level of a schema. If the schema contains references or errors, every value passes. */
export function quickValidator(schema: JsonObject): (value: unknown) => boolean {
  try {
    return new (draft2020())(OPTIONS).compile(schema);
  } catch {
    return () => true;
  }
}
