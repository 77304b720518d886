// Fits schemas to llama.cpp's converter. The converter refuses some schemas that validators accept: schemas that are
// too large or too deep, and schemas with patterns that expand too far. The grammar of such a schema leaves out as few
// constraints as possible. After generation, values are checked against the whole schema.
import { HeadstartError } from '../../errors.js';
import type { JsonObject } from '../../json.js';
import { jsonSchemaToGrammar } from '../../native/reply.js';
import { type GrammarDetail, schemaForGrammar, TooLarge } from './grammar-schema.js';
import { Unsatisfiable } from './grammar-values.js';

/** A schema that llama.cpp can convert to a grammar. */
export interface FittedSchema {
  schema: JsonObject;
  /** The grammar of this schema alone. */
  grammar: string;
}

/** The levels of detail, the most detailed one first. */
const DETAILS: readonly GrammarDetail[] = [
  { patterns: true, depth: 32, entries: 200, items: 256 },
  { patterns: false, depth: 32, entries: 200, items: 64 },
  { patterns: false, depth: 12, entries: 64, items: 16 },
  { patterns: false, depth: 4, entries: 64, items: 4 },
  { patterns: false, depth: 2, entries: 16, items: 0 },
  { patterns: false, depth: 0, entries: 0, items: 0 },
];

/** The index of the first level of detail that enforces little more than the names of properties. */
export const SHORT_DETAIL = 4;

/**
 * Finds the most detailed form of a schema that llama.cpp can convert.
 *
 * @param isArguments whether the value must be an object, even if the schema allows other types
 * @param detail the index of the first level of detail to try
 * @returns the form, or the reason why no value fits the schema
 */
export async function fitForGrammar(
  schema: JsonObject,
  isArguments: boolean,
  detail = 0,
): Promise<FittedSchema | Unsatisfiable> {
  for (const each of DETAILS.slice(detail)) {
    const converted = await withinSize(schemaForGrammar(schema, each, isArguments));
    if (converted instanceof Unsatisfiable) {
      return converted;
    }
    const grammar = converted && (await grammarOf(converted));
    if (grammar instanceof Unsatisfiable) {
      return grammar;
    }
    if (grammar !== undefined) {
      return { schema: converted as JsonObject, grammar };
    }
  }
  const anything = isArguments ? { type: 'object' } : {};
  return { schema: anything, grammar: await jsonSchemaToGrammar(anything) };
}

/** The grammar of a schema. Undefined if llama.cpp refuses the schema. */
async function grammarOf(schema: JsonObject): Promise<string | Unsatisfiable | undefined> {
  try {
    return await jsonSchemaToGrammar(schema);
  } catch (error) {
    if (HeadstartError.isInstance(error, 'SCHEMA_INVALID') && error.message.includes('can never end')) {
      return new Unsatisfiable('every value that fits it would contain another such value, without end');
    }
    if (HeadstartError.isInstance(error, 'SCHEMA_INVALID') || HeadstartError.isInstance(error, 'JSON_TOO_DEEP')) {
      return undefined;
    }
    throw error;
  }
}

async function withinSize<T>(conversion: Promise<T>): Promise<T | undefined> {
  try {
    return await conversion;
  } catch (error) {
    if (error instanceof TooLarge) {
      return undefined;
    }
    throw error;
  }
}
