import type { ValidateFunction } from 'ajv';
import { LRUCache } from 'lru-cache';
import { toJSONSchema } from 'zod';
import { HeadstartError } from '../../errors.js';
import type { JsonObject } from '../../json.js';
import { remembered } from '../../remembered.js';
import { fitForGrammar, SHORT_DETAIL } from './grammar-fit.js';
import { Unsatisfiable } from './grammar-values.js';
import { shownSchema } from './shown-schema.js';
import { compileValidator } from './validator.js';

/** A schema that follows the Standard Schema specification (version 1), for example a zod schema. */
export interface StandardSchema<T = unknown> {
  /** The properties that the specification defines. */
  readonly '~standard': {
    /** The version of the specification. */
    readonly version: 1;
    /** The name of the library. */
    readonly vendor: string;
    /** Checks a value, and transforms it if the schema has transforms. */
    readonly validate: (value: unknown) => StandardResult<T> | Promise<StandardResult<T>>;
    /** Converts the schema to JSON Schema: see the Standard JSON Schema specification. */
    readonly jsonSchema?:
      | {
          /** The JSON Schema of accepted values. */
          input(options: { target: 'draft-2020-12' }): object;
        }
      | undefined;
    /** The types of values. This property exists only in TypeScript. */
    readonly types?:
      | {
          /** The type of accepted values. */
          readonly input: unknown;
          /** The type of parsed values. */
          readonly output: T;
        }
      | undefined;
  };
}

type StandardResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

/** A JSON Schema, or a zod schema (version 4). */
export type Schema<T = unknown> = StandardSchema<T> | object;

/** The type of a schema's values: the output type of a zod schema, or `unknown` for a JSON Schema. */
export type SchemaValue<S> = S extends StandardSchema<infer T> ? T : unknown;

/** A schema that is prepared for prompts, grammars and checks. */
export interface PreparedSchema {
  /** The form that the prompt shows to the model. */
  readonly jsonSchema: object;
  /** The form from which the grammar is made. */
  readonly grammarSchema: object;
  /** The length of the grammar, in characters. */
  readonly grammarLength: number;
  /** A form with a short grammar. This form is used if the grammar of all tools of a set would be too long. */
  readonly shortSchema: object;
  /**
   * Checks a value. A zod schema may fill in defaults and transform the value.
   *
   * @throws HeadstartError `SCHEMA_MISMATCH`. The message names the wrong part of the value.
   */
  parse(value: unknown): Promise<unknown>;
}

/**
 * Maximum number of compiled JSON Schemas in the cache. The cache helps because sessions use the same schemas
 * repeatedly.
 */
const MAX_COMPILED = 256;
const compiled = new LRUCache<string, Promise<PreparedSchema>>({ max: MAX_COMPILED });

/**
 * @param what the name of the schema in errors
 * @param isArguments whether the value must be an object, even if the schema allows other types
 * @throws HeadstartError `SCHEMA_INVALID` with the reason. A schema that no value fits is invalid, too.
 */
export async function prepareSchema(schema: Schema, what: string, isArguments = false): Promise<PreparedSchema> {
  if (!isStandardSchema(schema)) {
    return prepareJsonSchema(schema, what, isArguments);
  }
  const prepared = await prepareJsonSchema(await standardJsonSchema(schema, what), what, isArguments);
  return {
    ...prepared,
    parse: async (value) => {
      await prepared.parse(value);
      const result = await schema['~standard'].validate(value);
      if (result.issues !== undefined) {
        throw mismatch(
          result.issues.map(({ message, path }) => `${(path ?? []).map(String).join('/')} ${message}`.trim()),
        );
      }
      return result.value;
    },
  };
}

export function isStandardSchema(value: unknown): value is StandardSchema {
  return (typeof value === 'object' || typeof value === 'function') && value !== null && '~standard' in value;
}

async function standardJsonSchema(schema: StandardSchema, what: string): Promise<object> {
  const { vendor, jsonSchema } = schema['~standard'];
  try {
    if (jsonSchema !== undefined) {
      return jsonSchema.input({ target: 'draft-2020-12' });
    }
    if (vendor === 'zod') {
      return toJSONSchema(schema as never, { io: 'input' }); // zod before 4.2
    }
  } catch (cause) {
    throw invalid(
      `Expected ${what} to be a schema that can be written as JSON Schema: ${(cause as Error).message}`,
      cause,
    );
  }
  throw invalid(`Expected ${what} to be a JSON Schema or a zod 4 schema, got a schema of ${vendor}`);
}

function prepareJsonSchema(schema: object, what: string, isArguments: boolean): Promise<PreparedSchema> {
  const text = schemaText(schema, what);
  const name = `${isArguments} ${text}`;
  // An error is not remembered. It names this tool, and another tool may have the same schema.
  return remembered(compiled, name, () => compile(text, what, isArguments));
}

function schemaText(schema: unknown, what: string): string {
  try {
    const text = JSON.stringify(schema);
    if (typeof text === 'string' && text.startsWith('{')) {
      return text;
    }
  } catch (cause) {
    throw invalid(`Expected ${what} to be JSON data: ${(cause as Error).message}`, cause);
  }
  throw invalid(`Expected ${what} to be a JSON Schema object`);
}

async function compile(text: string, what: string, isArguments: boolean): Promise<PreparedSchema> {
  let jsonSchema: JsonObject;
  let validate: ValidateFunction;
  try {
    // Remove ajv's keyword `$async`: with it, `validate` would return a promise, which counts as true.
    const { $schema, $async: _, ...schema } = parseSchema(text, what);
    jsonSchema = schema;
    validate = compileValidator(schema, { text, $schema });
  } catch (cause) {
    if (HeadstartError.isInstance(cause)) {
      throw cause;
    }
    throw invalid(`Expected ${what} to be a valid JSON Schema: ${(cause as Error).message}`, cause);
  }
  const fitted = await fitForGrammar(jsonSchema, isArguments);
  if (fitted instanceof Unsatisfiable) {
    throw invalid(`Expected ${what} to be a schema that some value fits, but ${fitted.reason}`);
  }
  return {
    jsonSchema: Object.freeze(shownSchema(jsonSchema)),
    grammarSchema: Object.freeze(fitted.schema),
    grammarLength: fitted.grammar.length,
    shortSchema: fitted.grammar.length > LONG_GRAMMAR ? await shortSchema(jsonSchema, isArguments) : fitted.schema,
    parse: async (value) => {
      if (!validate(value)) {
        throw mismatch((validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`.trim()));
      }
      return value;
    },
  };
}

/** Length of a long grammar, in characters. Only schemas with a longer grammar get a short form. */
const LONG_GRAMMAR = 8192;

async function shortSchema(schema: JsonObject, isArguments: boolean): Promise<object> {
  const fitted = await fitForGrammar(schema, isArguments, SHORT_DETAIL);
  return fitted instanceof Unsatisfiable ? { type: 'object' } : fitted.schema;
}

function parseSchema(text: string, what: string): Record<string, unknown> {
  return JSON.parse(text, (name, value) => {
    if (name === '__proto__') {
      throw invalid(
        `Expected ${what} to have no property \`__proto__\`: every object has one, so it could not be checked`,
      );
    }
    return value;
  }) as Record<string, unknown>;
}

function mismatch(problems: readonly string[]): HeadstartError {
  return new HeadstartError('SCHEMA_MISMATCH', problems.slice(0, 8).join('; ') || 'the value does not fit the schema');
}

function invalid(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('SCHEMA_INVALID', message.slice(0, 500), { cause });
}
