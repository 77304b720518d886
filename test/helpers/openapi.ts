// Checks responses of a server against its OpenAPI document.
import { Ajv2020 } from 'ajv/dist/2020.js';
import { createHandler } from 'llama-headstart/server';

interface Content {
  [type: string]: { schema: { $ref: string } } | undefined;
}

/** An endpoint of the OpenAPI document. */
export interface DocumentedOperation {
  /** The method and the path, for example `GET /v1/models/{name}`. */
  title: string;
  method: string;
  path: string;
  requestBody?: object;
  responses: Record<string, { content: Content }>;
}

interface OpenApi {
  paths: Record<string, Record<string, Omit<DocumentedOperation, 'title' | 'method' | 'path'>>>;
}

/** The document of a server whose model does nothing. The document does not depend on the model. */
const documentOf = async () => {
  const never = () => Promise.reject(new Error('Expected no request'));
  const handler = createHandler({ id: 'none', countTokens: never, chat: never as never });
  return (await handler(new Request('http://localhost/openapi.json'))).json() as Promise<OpenApi>;
};

export const openApiDocument = await documentOf();

/** All endpoints of the OpenAPI document. */
export const OPERATIONS: readonly DocumentedOperation[] = Object.entries(openApiDocument.paths).flatMap(
  ([path, item]) =>
    Object.entries(item).map(([name, operation]) => {
      const method = name.toUpperCase();
      return { ...operation, method, path, title: `${method} ${path}` };
    }),
);

/** The endpoint that answers a request. A path without parameters comes before a path with parameters. */
export function operationOf(method: string, path: string): DocumentedOperation | undefined {
  const candidates = OPERATIONS.filter((each) => each.method === method && patternOf(each.path).test(path));
  return candidates.find((each) => each.path === path) ?? candidates[0];
}

const patternOf = (path: string) => new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`);

const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addSchema(openApiDocument, 'openapi.json');

/** What is wrong with the body of a response, or with an event of a stream; undefined if nothing is. */
export function problemOf(
  { responses }: DocumentedOperation,
  body: unknown,
  { status = 200, type = 'application/json' } = {},
): string | undefined {
  const schema = responses[status]?.content[type]?.schema;
  if (schema === undefined) return `The document has no ${type} with status ${status}`;
  const check = ajv.compile({ $ref: `openapi.json${schema.$ref}` });
  return check(body) ? undefined : ajv.errorsText(check.errors);
}
