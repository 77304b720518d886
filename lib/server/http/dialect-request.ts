import type { ChatRequest } from '../../chat/chat.js';
import type { Tool, ToolChoice } from '../../tools/tool.js';

type Optional<Value> = Value | null | undefined;

/** What the reader of a dialect found in a body. */
export interface DialectRequest
  extends Pick<ChatRequest, 'messages' | 'cacheHints' | 'logProbabilities' | 'sampling' | 'reasoning'> {
  tools: readonly Tool[];
  /** Without effect if there are no tools, and if the reply follows a schema. */
  toolChoice: ToolChoice;
  parallelToolCalls: Optional<boolean>;
  /** The JSON Schema of the reply. */
  schema: Optional<object>;
  /** An empty string and an empty list have no effect. */
  stop?: Optional<string | readonly string[]>;
  /** 0 and negative numbers have no effect. */
  maxTokens: Optional<number>;
  /** An empty name has no effect. */
  affinity?: Optional<string>;
}

/** The request that a body asks for. */
export function dialectRequest(contents: DialectRequest): ChatRequest {
  const { toolChoice, parallelToolCalls, schema, stop, maxTokens, affinity, ...others } = contents;
  const isFree = schema === null || schema === undefined;
  return {
    ...others,
    ...(isFree && others.tools.length > 0 && { toolChoice }),
    ...(typeof parallelToolCalls === 'boolean' && { parallelToolCalls }),
    ...(!isFree && { responseFormat: { type: 'json' as const, schema } }),
    ...(stop && stop.length > 0 && { stop }),
    ...(maxTokens && maxTokens > 0 && { maxTokens }),
    ...(affinity && { affinity }),
  };
}
