import type { TemplateCacheStats } from '../cache/statistics.js';
import type { EngineStatus } from '../engine/engine.js';

/** How an agent does right now. Asking costs microseconds: made for a health check, or a scrape every few seconds. */
export interface AgentHealth extends EngineStatus {
  /** `closing` from the call of `close()` on. */
  status: 'ok' | 'closing';
  /** Since the agent was initialised, ms. */
  uptimeMs: number;
  /** The model file's path. */
  model: string;
  /** Sessions that are not closed, idle ones included. */
  openSessions: number;
  /** As `agent.getTemplateCacheStats()` has them. */
  templateCache: TemplateCacheStats;
}
