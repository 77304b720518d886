/**
 * llama.cpp agents for Node.js whose sessions start warm.
 *
 * @packageDocumentation
 */

export type { AgentHealth } from './agent/agent-health.js';
export type { AgentOptions } from './agent/agent-options.js';
export { AgentServer } from './agent/agent-server.js';
export type { DirectoryBudget } from './cache/disk/eviction.js';
export type {
  CacheEntry,
  CacheEntryDetails,
  PruneReport,
  VerifyOptions,
  VerifyReport,
} from './cache/disk/operations.js';
export { TEMPLATE_CACHE_CHANNEL, type TemplateCacheEvent } from './cache/events.js';
export type { ComponentDifference, MissExplanation, TokenDifference } from './cache/explain.js';
export {
  type KeyComponents,
  type KeyInputs,
  keyComponents,
  loraComponent,
  reproducibleComponent,
  templateKey,
} from './cache/key.js';
export type { CacheOptions } from './cache/options.js';
export type { TenantOptions } from './cache/prefix-cache.js';
export type { CacheOutcome, StartReport, StateSource, Tier } from './cache/start-report.js';
export type { TemplateCacheCounts, TemplateCacheStats } from './cache/statistics.js';
export type { TemplateCache, TemplateMissExplanation, TemplateOptions, WarmOptions } from './cache/template-cache.js';
export {
  type DecodeEvent,
  type DiagnosticsEvents,
  type PrefillEvent,
  type SessionEvent,
  type SessionStart,
  subscribeDiagnostics,
  type ToolCallEvent,
  type TurnEvent,
} from './diagnostics/events.js';
export type { Decoded, DecodeRequest, PrefillOptions } from './engine/decode-request.js';
export { Engine, type EngineOptions, type EngineStatus } from './engine/engine.js';
export type { EngineContext } from './engine/engine-context.js';
export type { BatchInvariance } from './engine/reproducible/self-test.js';
export type { SequenceHolder } from './engine/sequence-pool.js';
export { type ErrorCode, HeadstartError } from './errors.js';
export type { RepetitionGuardOptions } from './generate/repetition-guard.js';
export type { ResponseFormat } from './generate/response-format.js';
export { samplingDefaults } from './generate/sampling.js';
export type {
  CompactionReport,
  FinishDetail,
  FinishPart,
  FinishReason,
  LikelyToken,
  Reply,
  StreamPart,
  TokenLogProbabilities,
  ToolResult,
  Usage,
} from './generate/stream-parts.js';
export type { Logger, LogLevel } from './logger.js';
export { modelsDirectory } from './model/directory.js';
export { fingerprintModel } from './model/fingerprint.js';
export type { LoraConfig } from './model/lora-files.js';
export type { ModelConfig } from './model/model-options.js';
export type { ModelProgress, OnModelProgress } from './model/progress.js';
export { type ResolvedModel, type ResolveModelOptions, resolveModel } from './model/resolve.js';
export type { RetryConfig } from './model/retry.js';
export type {
  HuggingFaceModelSource,
  LocalModelSource,
  ModelSource,
  ModelSourceInput,
  UrlModelSource,
} from './model/source.js';
export type { CacheType, KvLayout, RopeScaling } from './native/context.js';
export type {
  AssistantMessage,
  ChatMessage,
  ToolCall,
  ToolMessage,
  UserMessage,
} from './prompt/messages.js';
export type { TemplateSource, ToolDefinition } from './prompt/renderer.js';
export type { SamplingOptions } from './sampling-options.js';
export type { CompactionOptions, CompactOptions } from './session/compaction/compaction.js';
export type { Completion, CompletionOptions, CompletionPart } from './session/completion.js';
export type { TurnInput } from './session/conversation.js';
export type {
  ConversationMessage,
  MessageInput,
  MessageText,
  OpenAiAssistantMessage,
  OpenAiToolCall,
  OpenAiToolMessage,
  SystemMessageInput,
} from './session/message-input.js';
export type { GenerationOptions, SendOptions, ToolOptions } from './session/options.js';
export { Session } from './session/session.js';
export type { SaveOptions, SessionOptions } from './session/session-options.js';
export type { ToolCallDecision, ToolCallHook } from './tools/approval.js';
export type { McpHttpServer, McpServerConfig, McpStdioServer } from './tools/mcp/mcp-config.js';
export type { McpPromptMessage } from './tools/mcp/mcp-content.js';
export { type McpPrompt, McpServers, type McpTool } from './tools/mcp/mcp-servers.js';
export type { Schema, SchemaValue, StandardSchema } from './tools/schemas/schema.js';
export { type Tool, type ToolChoice, type ToolContext, type ToolSession, tool } from './tools/tool.js';
