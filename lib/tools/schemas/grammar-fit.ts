// llama.cpp's converter refuses some schemas that validators accept: too large, too deep, or with patterns that expand too far. The
// grammar of such a schema leaves out as little as possible. Values are checked against the whole schema after generation.
import { HeadstartError } from '../../errors.js';
import { jsonSchemaToGrammar } from '../../native/reply.js';
import type { JsonObject } from '../../schema-walk.js';
import { type GrammarDetail, schemaForGrammar, TooLarge } from './grammar-schema.js';
import { Never } from './grammar-values.js';

/** A schema that llama.cpp makes a grammar of. */
export interface FittedSchema {
  schema: JsonObject;
  /** The grammar that it makes when it stands alone. */
  grammar: string;
}

/** From the most detailed grammar to the least detailed one. */
const DETAILS: readonly GrammarDetail[] = [
  { patterns: true, depth: 32, entries: 200, items: 256 },
  { patterns: false, depth: 32, entries: 200, items: 64 },
  { patterns: false, depth: 12, entries: 64, items: 16 },
  { patterns: false, depth: 4, entries: 64, items: 4 },
  { patterns: false, depth: 2, entries: 16, items: 0 },
  { patterns: false, depth: 0, entries: 0, items: 0 },
];

/** The first detail whose grammar has little more than the names of properties. */
export const SHORT_DETAIL = 4;

/**
 * @param isArguments the value is an object, whatever else the schema allows
 * @param detail the first index in the list of details to try
 * @returns what llama.cpp takes of the schema, or why no value fits it
 */
export async function fitForGrammar(
  schema: JsonObject,
  isArguments: boolean,
  detail = 0,
): Promise<FittedSchema | Never> {
  for (const each of DETAILS.slice(detail)) {
    const said = withinSize(() => schemaForGrammar(schema, each, isArguments));
    if (said instanceof Never) {
      return said;
    }
    const grammar = said && (await grammarOf(said));
    if (grammar instanceof Never) {
      return grammar;
    }
    if (grammar !== undefined) {
      return { schema: said as JsonObject, grammar };
    }
  }
  const anything = isArguments ? { type: 'object' } : {};
  return { schema: anything, grammar: await jsonSchemaToGrammar(anything) };
}

/** Undefined for what llama.cpp refuses. */
async function grammarOf(schema: JsonObject): Promise<string | Never | undefined> {
  try {
    return await jsonSchemaToGrammar(schema);
  } catch (error) {
    if (HeadstartError.isInstance(error, 'SCHEMA_INVALID') && error.message.includes('can never end')) {
      return new Never('every value that fits it holds another one, without end');
    }
    if (HeadstartError.isInstance(error, 'SCHEMA_INVALID') || HeadstartError.isInstance(error, 'JSON_TOO_DEEP')) {
      return undefined;
    }
    throw error;
  }
}

function withinSize<T>(convert: () => T): T | undefined {
  try {
    return convert();
  } catch (error) {
    if (error instanceof TooLarge) {
      return undefined;
    }
    throw error;
  }
}
