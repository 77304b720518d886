// Describes endpoints for the OpenAPI document. Every named schema becomes a component of the document.
import { z } from 'zod';

/** An endpoint, as the OpenAPI document describes it. */
export interface Operation {
  method: 'get' | 'post' | 'delete';
  /** The path. Parameters are in braces. */
  path: string;
  /** What the endpoint does, as a sentence. */
  summary: string;
  /** More sentences about the endpoint. */
  description?: string;
  /** Who may call the endpoint. @default clients with an API key, or everyone if the server has no keys */
  access?: 'everyone' | 'admin';
  /** The meaning of each parameter in the path. */
  parameters?: Readonly<Record<string, string>>;
  /** The JSON body of a request, as {@link requestSchema}. */
  body?: z.ZodType;
  /** The JSON body of a response, as {@link responseSchema}. @default the response is text */
  response?: z.ZodType;
  /** The data of an event, if a client asks for a stream. */
  events?: z.ZodType;
  /** Statuses of refusals that other endpoints do not have. */
  refusals?: readonly number[];
}

/** The endpoints of one API. */
export interface OperationGroup {
  /** The name of the API. */
  name: string;
  /** A sentence about the API. */
  description: string;
  operations: readonly Operation[];
}

/** The named schemas of request bodies. */
export const REQUEST_SCHEMAS = z.registry<{ id: string }>();
/** The named schemas of responses. */
export const RESPONSE_SCHEMAS = z.registry<{ id: string }>();

/** Names the schema of a request body. */
export function requestSchema<S extends z.ZodType>(id: string, schema: S): S {
  REQUEST_SCHEMAS.add(schema, { id });
  return schema;
}

/** Names the schema of a response, or of an object in responses. */
export function responseSchema<S extends z.ZodType>(id: string, schema: S): S {
  RESPONSE_SCHEMAS.add(schema, { id });
  return schema;
}
