import type { ConversationsStatus } from '../cache/conversation-store.js';
import type { TemplateCacheStats } from '../cache/statistics.js';
import type { EngineStatus } from '../engine/engine.js';
import type { StateStoreStatus } from '../engine/state-store.js';

/**
 * The current state of an agent. Reading it takes microseconds, so it suits health checks and scrapes every few
 * seconds.
 */
export interface AgentHealth extends EngineStatus {
  /** `closing` after `close()` was called. */
  status: 'ok' | 'closing';
  /** Milliseconds since the agent was initialized. */
  uptimeMs: number;
  /** The model file's path. */
  model: string;
  /** Sessions that are not closed, idle ones included. */
  openSessions: number;
  /** KV states that are in memory, but not in the KV cache. Their budget is `cache.maxMemoryBytes`. */
  states: StateStoreStatus;
  /** The conversations in the cache directory. All numbers are 0 if `cache.conversations` is off. */
  conversations: ConversationsStatus;
  /** The result of `agent.getTemplateCacheStats()`. */
  templateCache: TemplateCacheStats;
}
