// The OpenAPI document of the server, generated from the schemas that check requests and describe responses.
import { z } from 'zod';
import { packageVersion } from '../../native/places.js';
import { ANTHROPIC } from '../anthropic/operations.js';
import { HEADSTART } from '../headstart/operations.js';
import { LLAMA_SERVER } from '../llama-server/operations.js';
import { OPENAI } from '../openai/operations.js';
import { OPENAI_RESPONSES } from '../responses/operations.js';
import { type Operation, type OperationGroup, REQUEST_SCHEMAS, RESPONSE_SCHEMAS } from './operation.js';

const GROUPS: readonly OperationGroup[] = [OPENAI, OPENAI_RESPONSES, ANTHROPIC, LLAMA_SERVER, HEADSTART];

/** The meaning of each status of a refusal. */
const REFUSALS: Readonly<Record<number, string>> = {
  400: 'The body is wrong, or the prompt does not fit into the context.',
  401: 'The API key is missing or unknown.',
  403: 'The host or the origin of the request is not allowed, or the endpoint needs an admin key.',
  404: 'There is no such object.',
  413: 'The body is too large.',
  415: 'The body is not JSON, or is encoded.',
  429: 'Too many requests are in progress. Repeat the request after the time in `Retry-After`.',
  500: 'The server failed.',
  501: 'The model of this server does not offer what the endpoint needs.',
  503: 'The server is shutting down.',
};

const PREFIX = '#/components/schemas/';

/** Returns the OpenAPI document. */
export function openApiDocument(): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const { name, operations } of GROUPS) {
    for (const operation of operations) {
      paths[operation.path] = { ...paths[operation.path], [operation.method]: operationOf(operation, name) };
    }
  }
  return {
    openapi: '3.1.1',
    info: {
      title: 'llama-headstart',
      version: packageVersion,
      description: 'A local model with the APIs of OpenAI, Anthropic and llama-server.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    tags: GROUPS.map(({ name, description }) => ({ name, description })),
    security: [{ bearer: [] }, { apiKey: [] }, {}],
    paths,
    components: {
      schemas: { ...schemasOf(REQUEST_SCHEMAS, 'input'), ...schemasOf(RESPONSE_SCHEMAS, 'output') },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer' },
        apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      },
    },
  };
}

function operationOf(operation: Operation, tag: string): object {
  const { method, path, summary, access, parameters = {}, body, response, events } = operation;
  const description = [operation.description, access === 'admin' && 'Needs an admin key.'].filter(Boolean).join(' ');
  const ok = {
    ...(response === undefined ? { 'text/plain': { schema: { type: 'string' } } } : jsonOf(response)),
    ...(events && { 'text/event-stream': { schema: refOf(events) } }),
  };
  return {
    operationId: `${method} ${path}`,
    tags: [tag],
    summary,
    ...(description && { description }),
    ...(access === 'everyone' && { security: [] }),
    ...(Object.keys(parameters).length > 0 && { parameters: Object.entries(parameters).map(parameterOf) }),
    ...(body && { requestBody: { required: true, content: jsonOf(body) } }),
    responses: { 200: { description: 'The request was answered.', content: ok }, ...refusalsOf(operation) },
  };
}

function parameterOf([name, description]: [string, string]): object {
  return { name, in: 'path', required: true, description, schema: { type: 'string' } };
}

function refusalsOf({ path, access, body, events, refusals = [] }: Operation): object {
  const statuses = [
    ...(body === undefined ? [] : [400, 413, 415]),
    ...(access === 'everyone' ? [] : [401, 403]),
    ...(events === undefined ? [] : [429, 500, 503]),
    ...refusals,
  ];
  const content = { 'application/json': { schema: { $ref: PREFIX + errorIdOf(path) } } };
  return Object.fromEntries(statuses.map((status) => [status, { description: REFUSALS[status], content }]));
}

function errorIdOf(path: string): string {
  return path.startsWith('/v1/messages') ? 'AnthropicError' : 'OpenAiError';
}

function jsonOf(schema: z.ZodType): object {
  return { 'application/json': { schema: refOf(schema) } };
}

function refOf(schema: z.ZodType): object {
  const id = (REQUEST_SCHEMAS.get(schema) ?? RESPONSE_SCHEMAS.get(schema))?.id;
  if (id === undefined) {
    throw new TypeError('Expected a named schema');
  }
  return { $ref: PREFIX + id };
}

/** The JSON Schemas of named schemas. @param io what a client sends, or what it receives */
function schemasOf(registry: typeof REQUEST_SCHEMAS, io: 'input' | 'output'): Record<string, object> {
  const { schemas } = z.toJSONSchema(registry, {
    io,
    uri: (id) => PREFIX + id,
    unrepresentable: 'any',
    override: ({ jsonSchema }) => dropSafeBounds(jsonSchema),
  });
  return Object.fromEntries(Object.entries(schemas).map(([id, { $id: _, $schema: __, ...schema }]) => [id, schema]));
}

/** zod bounds each integer by the largest safe integer. These bounds would only be noise. */
function dropSafeBounds(schema: z.core.JSONSchema.BaseSchema): void {
  if (schema.minimum === Number.MIN_SAFE_INTEGER) {
    delete schema.minimum;
  }
  if (schema.maximum === Number.MAX_SAFE_INTEGER) {
    delete schema.maximum;
  }
}
