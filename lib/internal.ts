/**
 * Exports for the tests, benchmarks and scripts of this repository. The exports are unstable: any release may rename,
 * change or remove one without notice. Programs must import from `llama-headstart` and `llama-headstart/native`.
 *
 * @packageDocumentation
 */

export { combinedSignal, onAbort, orAborted, waitInQueue } from './abort.js';
export { resolveAgentOptions, resolveContextSizes } from './agent/agent-config.js';
export { AGENT_OPTIONS } from './agent/agent-options.js';
export { CACHE_OPTIONS, defaultMemoryBytes } from './cache/cache-options.js';
export { CONVERSATION_OPTIONS, defaultConversationBytes } from './cache/conversation-options.js';
export { CacheDirectory } from './cache/disk/cache-directory.js';
export { DirectoryIndex } from './cache/disk/directory-index.js';
export { DiskStore } from './cache/disk/disk-store.js';
export { BUDGET_OPTIONS, type DatedEntry, entriesOverBudget } from './cache/disk/eviction.js';
export { VERIFY_OPTIONS } from './cache/disk/operations.js';
export { FORGET_OPTIONS } from './cache/forget-options.js';
export { HintPins } from './cache/hint-pins.js';
export { type KeyComponents, type KeyInputs, keyComponents, templateKey } from './cache/key.js';
export { PrefillEstimate } from './cache/prefill-estimate.js';
export { PrefixCache, type PrefixCacheOptions, type StartOptions, type TenantOptions } from './cache/prefix-cache.js';
export { hashPositions, hashPrefixes, likelyShared, prefixHashes } from './cache/prefix-hash.js';
export { PromptsInProgress } from './cache/prompts-in-progress.js';
export { type StateSource, startReport } from './cache/start-report.js';
export { StateCopier } from './cache/state-copier.js';
export { addCounts, NO_COUNTS, StatsCounter } from './cache/stats-counter.js';
export { TemplateCache, WARM_OPTIONS } from './cache/template-cache.js';
export { CACHE_HINT_OPTIONS } from './chat/cache-hints.js';
export { CHAT_OPTIONS } from './chat/chat.js';
export { COMPLETION_OPTIONS, type CompletionPart } from './chat/completion.js';
export { pendingCalls, readHistory, readTurn, type TurnInput } from './chat/conversation.js';
export { ConversationSequence } from './chat/conversation-sequence.js';
export type { ConversationMessage } from './chat/message-input.js';
export { type GenerationOptions, resolveToolOptions, SEND_OPTIONS } from './chat/send-options.js';
export { readTolerantHistory } from './chat/tolerant-history.js';
export { CODING_AGENTS } from './cli/agents/all-agents.js';
export { terminalMarkdown } from './cli/chat/markdown.js';
export { MarkdownWriter } from './cli/chat/markdown-writer.js';
export { COMMAND_GROUPS } from './cli/commands.js';
export { EXIT_CODES } from './cli/failure.js';
export { main } from './cli/main.js';
export { kvBytesPerToken } from './cli/model-memory.js';
export { aboutOf, flagOf } from './cli/option.js';
export { chooseContext } from './cli/serve/context-choice.js';
export { GLOBAL_OPTIONS } from './cli/shared-options.js';
export { type DecodeEvent, type PrefillEvent, publish } from './diagnostics/events.js';
export { startTelemetry } from './diagnostics/telemetry.js';
export { type BatchLimits, BatchWriter, fitBatch, planBatch } from './engine/batch.js';
export { type CellWaiter, CellWaitQueue } from './engine/cell-wait-queue.js';
export { type DecodeRequest, PendingRequest } from './engine/decode-request.js';
export { Engine } from './engine/engine.js';
export type { EngineContext } from './engine/engine-context.js';
export type { Arrival } from './engine/overtaking.js';
export { sameBits } from './engine/reproducible/self-test.js';
export { RwLock } from './engine/rw-lock.js';
export { Sequence } from './engine/sequence.js';
export { type SequenceOptions, withCheckpoint } from './engine/sequence-contents.js';
export { SequencePool } from './engine/sequence-pool.js';
export { StateSizes } from './engine/state-sizes.js';
export { type StateKind, StateStore, type StoredState } from './engine/state-store.js';
export { ThreadCounts } from './engine/thread-counts.js';
export { ThreadTuner } from './engine/thread-tuner.js';
export { windowCells } from './engine/window-budget.js';
export { makeDirectory, replaceFile, replaceText } from './files.js';
export { Detokenizer } from './generate/detokenizer.js';
export { ReasoningCounter } from './generate/reasoning-counter.js';
export { REPETITION_GUARD_OPTIONS, RepetitionGuard } from './generate/repetition-guard.js';
export { ReplyReader } from './generate/reply-reader.js';
export { type ConversationPrompt, SampledReplies } from './generate/sampled-replies.js';
export { mergeSampling, samplingDefaults } from './generate/sampling.js';
export { StopStrings } from './generate/stop-strings.js';
export type { FinishDetail } from './generate/stream-parts.js';
export { CallIds, toToolCall } from './generate/tool-calls.js';
export { ToolInputs } from './generate/tool-input.js';
export { UsageCounter } from './generate/usage-counter.js';
export { VisibleReply } from './generate/visible-reply.js';
export { fingerprintModel, shardPaths } from './model/fingerprint.js';
export { type AttentionUse, chooseAttention } from './model/flash-attention.js';
export { LORA_OPTIONS } from './model/lora-files.js';
export { MODEL_OPTIONS } from './model/model-options.js';
export type { ModelProgress } from './model/model-progress.js';
export { RESOLVE_OPTIONS, type ResolveModelOptions } from './model/resolve-model.js';
export { RETRY_CONFIG, resolveRetryConfig } from './model/retry.js';
export { type ModelSourceInput, parseModelSource, SOURCES } from './model/source.js';
export { ropeAdvice, trainingLengthWarning } from './model/training-length.js';
export {
  addon,
  type RawAddon,
  type RawContext,
  type RawLora,
  type RawModel,
  type RawSampler,
  type RawState,
} from './native/addon.js';
export { FileHash, type FileRange } from './native/file-hash.js';
export { addonFolders, buildsDirectory, moduleFile, packageVersion, platformName, userCache } from './native/places.js';
export { expectedBy, group, text } from './option-types.js';
export { parseOptions } from './parse-options.js';
export { requireExactIntegers } from './prompt/exact-json.js';
export { hermesReplyFormat } from './prompt/hermes.js';
export { MessageEnds } from './prompt/message-end.js';
export { ownerOfToken } from './prompt/prompt-place.js';
export {
  type Prompt,
  Renderer,
  type ReplyOptions,
  type TemplateSource,
  type ToolDefinition,
} from './prompt/renderer.js';
export { schemaForms } from './prompt/schema-forms.js';
export { type PromptSpans, type Span, SpanFinder } from './prompt/span-finder.js';
export { hasFalseMark, withoutFalseMarks, withSystemNotes } from './prompt/system-notes.js';
export { type Boundary, findBoundary, findBoundaryWithHint } from './prompt/template-boundary.js';
export { Templates } from './prompt/templates.js';
export { stableToolOrder } from './prompt/tool-order.js';
export {
  DRY_OPTIONS,
  LLAMA_CPP_SAMPLING,
  MIROSTAT_OPTIONS,
  SAMPLING_OPTIONS,
  XTC_OPTIONS,
} from './sampling-options.js';
export { COMPACT_OPTIONS, COMPACTION_OPTIONS } from './session/compaction/compaction.js';
export { SAVE_OPTIONS, SESSION_OPTIONS } from './session/session-options.js';
export { commonPrefixLength, isPrefix, prefixOfAtLeast, sameTokens } from './tokens.js';
export { MCP_SERVER_OPTIONS, type McpStdioServer } from './tools/mcp/mcp-config.js';
export { idInEdges, type Line, LineReader } from './tools/mcp/mcp-lines.js';
export { McpServers } from './tools/mcp/mcp-servers.js';
export { runCalls, type ToolOutcome, type ToolRun } from './tools/run-calls.js';
export { withDistinctReferences } from './tools/schemas/distinct-references.js';
export { schemaForGrammar } from './tools/schemas/grammar-schema.js';
export { Unsatisfiable } from './tools/schemas/grammar-values.js';
export { prepareSchema } from './tools/schemas/schema.js';
export { shownSchema } from './tools/schemas/shown-schema.js';
export { requireTools, TOOL_OPTIONS, ToolSet } from './tools/tool.js';
