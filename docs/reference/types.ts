/**
 * Types that no entry point exports, although the public declarations of `llama-headstart` refer to them. This file only
 * adds these types to the API reference. TypeDoc's check fails if a type is missing.
 *
 * @module types
 */

export type { CacheReport, PromptPlace } from '../../lib/cache/cache-report.js';
export type { DirectoryBudget } from '../../lib/cache/disk/eviction.js';
export type {
  CacheEntry,
  CacheEntryDetails,
  PruneReport,
  VerifyOptions,
  VerifyReport,
} from '../../lib/cache/disk/operations.js';
export type { ComponentDifference, MissExplanation, TokenDifference } from '../../lib/cache/explain-miss.js';
export type { KeyComponents } from '../../lib/cache/key.js';
export type { TenantOptions } from '../../lib/cache/prefix-cache.js';
export type { CacheOutcome, StateSource, Tier } from '../../lib/cache/start-report.js';
export type { TemplateCacheCounts } from '../../lib/cache/stats-counter.js';
export type {
  TemplateCache,
  TemplateKey,
  TemplateMissExplanation,
  TemplateOptions,
  WarmOptions,
} from '../../lib/cache/template-cache.js';
export type { CompletionPart } from '../../lib/chat/completion.js';
export type { TurnInput } from '../../lib/chat/conversation.js';
export type { PromptComparison, RequestExplanation } from '../../lib/chat/explain.js';
export type {
  ContentPart,
  ConversationMessage,
  MessageText,
  OpenAiAssistantMessage,
  OpenAiToolCall,
  OpenAiToolMessage,
  SystemMessageInput,
  TextPart,
  TolerantMessage,
} from '../../lib/chat/message-input.js';
export type { GenerationOptions, ToolOptions } from '../../lib/chat/send-options.js';
export type {
  DecodeEvent,
  PrefillEvent,
  SessionEvent,
  SessionStart,
  ToolCallEvent,
  TurnEvent,
} from '../../lib/diagnostics/events.js';
export type { EngineStatus } from '../../lib/engine/engine.js';
export type { BatchInvariance } from '../../lib/engine/reproducible/self-test.js';
export type { CheckpointTotals } from '../../lib/engine/sequence-states.js';
export type { StateCount, StateKind, StateStoreStatus } from '../../lib/engine/state-store.js';
export type { ThreadStatus } from '../../lib/engine/thread-counts.js';
export type { ThreadChange, ThreadChangeReason, ThreadCount } from '../../lib/engine/thread-tuner.js';
export type { PrefillProgress } from '../../lib/generate/prefill-progress.js';
export type { RepetitionGuardOptions } from '../../lib/generate/repetition-guard.js';
export type {
  FinishDetail,
  FinishPart,
  LikelyToken,
  TokenLogProbabilities,
} from '../../lib/generate/stream-parts.js';
export type { ModelProgress, OnModelProgress } from '../../lib/model/model-progress.js';
export type { ResolvedModel, ResolveModelOptions } from '../../lib/model/resolve-model.js';
export type { RetryConfig } from '../../lib/model/retry.js';
export type {
  HuggingFaceModelSource,
  LocalModelSource,
  ModelSourceInput,
  UrlModelSource,
} from '../../lib/model/source.js';
export type { ToolReferencePart } from '../../lib/prompt/deferred-tools.js';
export type { ToolDefinition } from '../../lib/prompt/renderer.js';
export type { CompactOptions } from '../../lib/session/compaction/compaction.js';
export type { SaveOptions } from '../../lib/session/session-options.js';
export type { McpHttpServer, McpStdioServer } from '../../lib/tools/mcp/mcp-config.js';
export type { McpPromptMessage } from '../../lib/tools/mcp/mcp-content.js';
export type { McpPrompt, McpServers, McpTool } from '../../lib/tools/mcp/mcp-servers.js';
export type { StandardSchema } from '../../lib/tools/schemas/schema.js';
export type { ToolSession } from '../../lib/tools/tool.js';
export type { ToolCallDecision } from '../../lib/tools/tool-call-hook.js';
