/**
 * llama.cpp agents for Node.js whose sessions start warm.
 *
 * Exports the names that programs need most. The types of their parameters, results and fields are part of the API,
 * even if they are not exported. Write such a type as `AgentHealth['kvCells']` or `Parameters<Session['save']>`.
 *
 * @packageDocumentation
 * @module llama-headstart
 */

export type { AgentHealth } from './agent/agent-health.js';
export type { AgentOptions } from './agent/agent-options.js';
export { AgentServer } from './agent/agent-server.js';
export type { CacheOptions } from './cache/cache-options.js';
export type { ConversationOptions } from './cache/conversation-options.js';
export type { ConversationsStatus } from './cache/conversation-store.js';
export { TEMPLATE_CACHE_CHANNEL, type TemplateCacheEvent } from './cache/events.js';
export type { ForgetOptions, ForgetReport } from './cache/forget-options.js';
export type { StartReport } from './cache/start-report.js';
export type { TemplateCacheStats } from './cache/statistics.js';
export type { CacheHint } from './chat/cache-hints.js';
export type { ChatRequest } from './chat/chat.js';
export type { ChatModel } from './chat/chat-model.js';
export type { Completion, CompletionOptions } from './chat/completion.js';
export type { MessageInput, RequestMessage } from './chat/message-input.js';
export type { SendOptions } from './chat/send-options.js';
export { type DiagnosticsEvents, subscribeDiagnostics } from './diagnostics/events.js';
export { type ErrorCode, HeadstartError } from './errors.js';
export type { ReplyStream } from './generate/reply-stream.js';
export type { ResponseFormat } from './generate/response-format.js';
export type {
  CompactionReport,
  FinishReason,
  Reply,
  StreamPart,
  ToolResult,
} from './generate/stream-parts.js';
export type { Logger, LogLevel } from './logger.js';
export type { LoraConfig } from './model/lora-files.js';
export type { ModelConfig } from './model/model-options.js';
export { resolveModel } from './model/resolve-model.js';
export type { ModelSource } from './model/source.js';
export type {
  AssistantMessage,
  ChatMessage,
  SystemMessage,
  ToolCall,
  ToolMessage,
  UserMessage,
} from './prompt/messages.js';
export type { SamplingOptions } from './sampling-options.js';
export type { CompactionOptions } from './session/compaction/compaction.js';
export { Session } from './session/session.js';
export type { SessionOptions } from './session/session-options.js';
export type { McpServerConfig } from './tools/mcp/mcp-config.js';
export type { Schema, SchemaValue } from './tools/schemas/schema.js';
export { type Tool, type ToolChoice, type ToolContext, tool } from './tools/tool.js';
export type { ToolCallHook } from './tools/tool-call-hook.js';
export type { Usage } from './usage.js';
