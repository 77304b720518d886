// Repairs JSON-RPC messages of MCP servers, so that the SDK's schemas accept them. Without repair, the SDK would drop
// an invalid message. The request would then reach its time limit, and the result of the tool would be lost.
import { isObject, type JsonObject } from '../../json.js';
import { withRealIntegers } from './mcp-integers.js';

const INTERNAL_ERROR = -32603;

/** @returns the repaired message, or undefined if it is not a JSON-RPC message (for example a line of a log) */
export function repairMessage(message: unknown): JsonObject | undefined {
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
    ? { jsonrpc: '2.0', id, result: repairResult(result) }
    : errorMessage(id, 'it answered with neither a result nor an error');
}

/** Makes an error response. @param error the JSON-RPC error as the server sent it, or the text of an error */
export function errorMessage(id: unknown, error: unknown): JsonObject {
  const { code, message, data } = isObject(error) ? error : { message: error };
  const number = typeof code === 'string' ? Number(code) : code;
  return {
    jsonrpc: '2.0',
    id,
    error: {
      code: Number.isSafeInteger(number) ? number : INTERNAL_ERROR,
      message: typeof message === 'string' ? message : withRealIntegers(JSON.stringify(message ?? error)),
      ...(data !== undefined && { data }),
    },
  };
}

/** Removes fields that are null from a request or notification. */
function withoutNulls(message: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null));
}

/** Repairs a result. A result that is not an object becomes the `content` of a new object. */
function repairResult(result: unknown): JsonObject {
  if (!isObject(result)) {
    return result === null || result === undefined ? {} : { content: result };
  }
  const { _meta, ...rest } = result; // this package uses nothing in `_meta`
  return 'protocolVersion' in rest && ('capabilities' in rest || 'serverInfo' in rest)
    ? repairInitializeResult(rest)
    : rest;
}

/** Keeps only the fields of an `initialize` result that this package uses. */
function repairInitializeResult({ protocolVersion, capabilities, serverInfo }: JsonObject): JsonObject {
  const offered = isObject(capabilities) ? capabilities : {};
  const { name, version } = isObject(serverInfo) ? serverInfo : {};
  const kinds = ['tools', 'prompts', 'resources'].filter((kind) => Boolean(offered[kind]));
  return {
    protocolVersion,
    capabilities: Object.fromEntries(kinds.map((kind) => [kind, repairCapability(offered[kind])])),
    serverInfo: { name: String(name ?? ''), version: String(version ?? '') },
  };
}

function repairCapability(capability: unknown): JsonObject {
  return isObject(capability) && capability.listChanged === true ? { listChanged: true } : {};
}
