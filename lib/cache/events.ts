import { channel } from 'node:diagnostics_channel';
import type { StartReport } from './report.js';

/** What is published on `node:diagnostics_channel`, channel `llama-headstart:template-cache`. */
export type TemplateCacheEvent =
  | { type: 'start'; report: Readonly<StartReport> }
  /** A template reached the disk: `bytes` of a file, `ms` from capture to commit. */
  | { type: 'save'; key: string; bytes: number; ms: number }
  | { type: 'save-failed'; key: string; reason: string }
  /** An entry was damaged and set aside. */
  | { type: 'corrupt'; key: string; reason: string }
  | { type: 'evict'; tier: 'resident' | 'memory' | 'disk'; key: string; reason: string }
  /** A start waits for another process that prefills the same template. */
  | { type: 'wait'; key: string };

/** The `node:diagnostics_channel` that the template cache publishes on. */
export const TEMPLATE_CACHE_CHANNEL = 'llama-headstart:template-cache';

const events = channel(TEMPLATE_CACHE_CHANNEL);

export function publish(event: TemplateCacheEvent): void {
  if (events.hasSubscribers) {
    events.publish(event);
  }
}
