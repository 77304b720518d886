// JSON-RPC messages of MCP servers in the form that the SDK's schemas accept. What these refuse never reaches the request that
// waits for it: the request fails when its time is over, and what the tool has answered is lost.
import { isObject, type JsonObject } from '../../schema-walk.js';

const INTERNAL_ERROR = -32603;

/** @returns the message in its proper form, or undefined if it is no JSON-RPC message (a line of a log, for example) */
export function mendMessage(message: unknown): JsonObject | undefined {
  if (!isObject(message)) {
    return undefined;
  }
  if ('method' in message) {
    return 'jsonrpc' in message ? withoutNulls(message) : undefined;
  }
  const { jsonrpc, id, result, error } = message;
  if (jsonrpc === undefined && result === undefined && error === undefined) {
    return undefined;
  }
  if (error !== undefined && error !== null && error !== false) {
    return errorMessage(id, error);
  }
  return 'result' in message
    ? { jsonrpc: '2.0', id, result: mendResult(result) }
    : errorMessage(id, 'it answered with neither a result nor an error');
}

/** @param error a JSON-RPC error, as a server sends it, or its text */
export function errorMessage(id: unknown, error: unknown): JsonObject {
  const { code, message, data } = isObject(error) ? error : { message: error };
  const number = typeof code === 'string' ? Number(code) : code;
  return {
    jsonrpc: '2.0',
    id,
    error: {
      code: Number.isSafeInteger(number) ? number : INTERNAL_ERROR,
      message: typeof message === 'string' ? message : JSON.stringify(message ?? error),
      ...(data !== undefined && { data }),
    },
  };
}

/** Of requests and notifications. */
function withoutNulls(message: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null));
}

/** A result that is not an object is the content of one. */
function mendResult(result: unknown): JsonObject {
  if (!isObject(result)) {
    return result === null || result === undefined ? {} : { content: result };
  }
  const { _meta, ...rest } = result; // nothing in it is used
  return 'protocolVersion' in rest && ('capabilities' in rest || 'serverInfo' in rest) ? mendGreeting(rest) : rest;
}

/** Of the result of `initialize`, what is used. */
function mendGreeting({ protocolVersion, capabilities, serverInfo }: JsonObject): JsonObject {
  const offered = isObject(capabilities) ? capabilities : {};
  const { name, version } = isObject(serverInfo) ? serverInfo : {};
  const kinds = ['tools', 'prompts', 'resources'].filter((kind) => Boolean(offered[kind]));
  return {
    protocolVersion,
    capabilities: Object.fromEntries(kinds.map((kind) => [kind, mendCapability(offered[kind])])),
    serverInfo: { name: String(name ?? ''), version: String(version ?? '') },
  };
}

function mendCapability(capability: unknown): JsonObject {
  return isObject(capability) && capability.listChanged === true ? { listChanged: true } : {};
}
