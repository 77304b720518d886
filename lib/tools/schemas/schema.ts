import type { ValidateFunction } from 'ajv';
import { LRUCache } from 'lru-cache';
import { toJSONSchema } from 'zod';
import { HeadstartError } from '../../errors.js';
import type { JsonObject } from '../../schema-walk.js';
import { fitForGrammar, SHORT_DETAIL } from './grammar-fit.js';
import { Never } from './grammar-values.js';
import { shownSchema } from './shown-schema.js';
import { compileValidator } from './validator.js';

/** What zod's schemas, and others that follow the Standard Schema specification (version 1), have in common. */
export interface StandardSchema<T = unknown> {
  /** What the specification puts there. */
  readonly '~standard': {
    /** Of the specification. */
    readonly version: 1;
    /** The library's name. */
    readonly vendor: string;
    /** Checks a value, and changes it as the schema says. */
    readonly validate: (value: unknown) => StandardResult<T> | Promise<StandardResult<T>>;
    /** Of the Standard JSON Schema specification: the schema as JSON Schema. */
    readonly jsonSchema?:
      | {
          /** Of what goes in. */
          input(options: { target: 'draft-2020-12' }): object;
        }
      | undefined;
    /** For TypeScript alone. */
    readonly types?:
      | {
          /** What may go in. */
          readonly input: unknown;
          /** What comes out. */
          readonly output: T;
        }
      | undefined;
  };
}

type StandardResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] };

/** A JSON Schema, or a zod schema (version 4) where zod is installed. */
export type Schema<T = unknown> = StandardSchema<T> | object;

/** What a schema's values are in TypeScript: known for zod's, unknown for JSON Schemas. */
export type SchemaValue<S> = S extends StandardSchema<infer T> ? T : unknown;

/** A schema as models and validators take it. */
export interface PreparedSchema {
  /** As the model is told it. */
  readonly jsonSchema: object;
  /** What the grammar says of it. */
  readonly grammarSchema: object;
  /** The length of the grammar. */
  readonly grammarLength: number;
  /** The little that the grammar says if there is no room for more. */
  readonly shortSchema: object;
  /**
   * The value as the schema has it (zod may fill in defaults and transform).
   *
   * @throws HeadstartError `SCHEMA_MISMATCH` that says what is wrong where.
   */
  parse(value: unknown): Promise<unknown>;
}

/** Compiled JSON Schemas remembered, by their text: sessions bring the same ones again and again. */
const MAX_COMPILED = 256;
const compiled = new LRUCache<string, Promise<PreparedSchema>>({ max: MAX_COMPILED });

/**
 * @param isArguments the value is an object, whatever else the schema allows
 * @throws HeadstartError `SCHEMA_INVALID` with the reason, also for a schema that no value fits.
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
    throw invalid(`Expected ${what} to be a schema that JSON Schema can say: ${(cause as Error).message}`, cause);
  }
  throw invalid(`Expected ${what} to be a JSON Schema or a zod 4 schema, got one of ${vendor}`);
}

function prepareJsonSchema(schema: object, what: string, isArguments: boolean): Promise<PreparedSchema> {
  const text = schemaText(schema, what);
  const name = `${isArguments} ${text}`;
  let prepared = compiled.get(name);
  if (prepared === undefined) {
    prepared = compile(text, what, isArguments);
    prepared.catch(() => compiled.delete(name)); // the next error names the next tool
    compiled.set(name, prepared);
  }
  return prepared;
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
    // `$async` is the validator's own: with it, it would answer later, and nobody would wait for it.
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
  if (fitted instanceof Never) {
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

/** Shorter ones are not worth a shorter form. */
const LONG_GRAMMAR = 8192;

async function shortSchema(schema: JsonObject, isArguments: boolean): Promise<object> {
  const fitted = await fitForGrammar(schema, isArguments, SHORT_DETAIL);
  return fitted instanceof Never ? { type: 'object' } : fitted.schema;
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
  return new HeadstartError(
    'SCHEMA_MISMATCH',
    problems.slice(0, 8).join('; ') || 'the value is not what the schema says',
  );
}

function invalid(message: string, cause?: unknown): HeadstartError {
  return new HeadstartError('SCHEMA_INVALID', message.slice(0, 500), { cause });
}
