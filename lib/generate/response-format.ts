import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import { requireExactIntegers } from '../prompt/exact-json.js';
import type { AssistantMessage, ChatMessage } from '../prompt/messages.js';
import { isStandardSchema, prepareSchema, type Schema } from '../tools/schemas/schema.js';

/**
 * Requires the reply to be JSON that matches a schema. A grammar enforces this. The reply is then parsed and fully
 * checked.
 */
export interface ResponseFormat<S extends Schema = Schema> {
  /** The only type. */
  type: 'json';
  /** JSON Schema, or a zod schema. */
  schema: S;
  /**
   * Whether the model may call tools first. Each reply is then either a call of tools or JSON, and a reply after the
   * results of tools is JSON or a further call. @default false
   */
  allowTools?: boolean | undefined;
}

export interface PreparedFormat {
  /** See {@link ResponseFormat.allowTools}. */
  allowTools: boolean;
  /** The part of the schema that the grammar enforces. */
  grammarSchema: object;
  /** @throws HeadstartError `REPLY_INVALID` with the reason. */
  parse(text: string): Promise<unknown>;
}

/** @throws HeadstartError `INVALID_ARGUMENT`, `SCHEMA_INVALID`. */
export async function prepareFormat(format: unknown): Promise<PreparedFormat | undefined> {
  if (format === undefined) {
    return undefined;
  }
  const { type, schema, allowTools = false } = (format ?? {}) as Partial<ResponseFormat>;
  if (type !== 'json' || typeof schema !== 'object' || schema === null) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`responseFormat\` to be { type: 'json', schema } with a JSON Schema or a zod schema, got ${
        isBareSchema(format) ? "a schema. Pass { type: 'json', schema }" : describe(format)
      }`,
    );
  }
  if (typeof allowTools !== 'boolean') {
    const received = describe(allowTools);
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`responseFormat.allowTools\` to be true or false, got ${received}`,
    );
  }
  const prepared = await prepareSchema(schema, '`responseFormat.schema`');
  return {
    allowTools,
    grammarSchema: prepared.grammarSchema,
    parse: async (text) => {
      try {
        const value: unknown = JSON.parse(text);
        requireExactIntegers(text);
        return await prepared.parse(value);
      } catch (cause) {
        throw new HeadstartError(
          'REPLY_INVALID',
          'Expected a reply that matches `responseFormat.schema`: ' +
            (cause instanceof Error ? cause.message : String(cause)),
          { cause },
        );
      }
    },
  };
}

/** A reply that the response format does not allow, with the reason. */
export interface Rejected {
  reply: AssistantMessage;
  error: HeadstartError;
}

/** The messages that ask the model to reply again. */
export function asMessages({ reply, error }: Rejected): ChatMessage[] {
  return [reply, { role: 'user', content: `${error.message}\nReply again, with JSON that matches the schema.` }];
}

function isBareSchema(value: unknown): boolean {
  const { type, schema, properties, anyOf, $ref } = (value ?? {}) as Record<string, unknown>;
  const isJsonSchema = schema === undefined && (type === 'object' || type === 'array' || (properties ?? anyOf ?? $ref));
  return isStandardSchema(value) || Boolean(isJsonSchema);
}
