import { channel } from 'node:diagnostics_channel';
import type { StartReport } from './start-report.js';

/** What is published on `node:diagnostics_channel`, channel `llama-headstart:template-cache`. */
export type TemplateCacheEvent =
  | {
      type: 'start';
      /** How the start went. */
      report: Readonly<StartReport>;
    }
  | {
      /** A template reached the disk. */
      type: 'save';
      /** SHA-256, hex. */
      key: string;
      /** Of its file. */
      bytes: number;
      /** Milliseconds from capture to commit. */
      ms: number;
    }
  | {
      type: 'save-failed';
      /** SHA-256, hex. */
      key: string;
      /** For people. */
      reason: string;
    }
  | {
      /** An entry was damaged and set aside. */
      type: 'corrupt';
      /** SHA-256, hex. */
      key: string;
      /** For people. */
      reason: string;
    }
  | {
      type: 'evict';
      /** Where it left. */
      tier: 'resident' | 'memory' | 'disk';
      /** SHA-256, hex. */
      key: string;
      /** For people. */
      reason: string;
    }
  | {
      /** A start waits for another process that prefills the same template. */
      type: 'wait';
      /** SHA-256, hex. */
      key: string;
    };

/** The `node:diagnostics_channel` that the template cache publishes on. */
export const TEMPLATE_CACHE_CHANNEL = 'llama-headstart:template-cache';

const events = channel(TEMPLATE_CACHE_CHANNEL);

export function publish(event: TemplateCacheEvent): void {
  if (events.hasSubscribers) {
    events.publish(event);
  }
}
