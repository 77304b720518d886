import { channel } from 'node:diagnostics_channel';
import type { StartReport } from './start-report.js';

/** The messages of the `node:diagnostics_channel` named `llama-headstart:template-cache`. */
export type TemplateCacheEvent =
  | {
      /** A session started. */
      type: 'start';
      /** The report of the start. */
      report: Readonly<StartReport>;
    }
  | {
      /** A template was saved. */
      type: 'save';
      /** The key of the template: SHA-256, hex. */
      key: string;
      /** Size of the file in bytes. */
      bytes: number;
      /** Duration of the write in ms: from its start to the rename of the file. */
      ms: number;
    }
  | {
      /** A template could not be saved. */
      type: 'save-failed';
      /** The key of the template: SHA-256, hex. */
      key: string;
      /** One sentence for people. */
      reason: string;
    }
  | {
      /** An entry was damaged and set aside. */
      type: 'corrupt';
      /** The key of the template: SHA-256, hex. */
      key: string;
      /** One sentence for people. */
      reason: string;
    }
  | {
      /** A template was evicted from one tier. */
      type: 'evict';
      /** The tier. */
      tier: 'resident' | 'memory' | 'disk';
      /** The key of the template: SHA-256, hex. */
      key: string;
      /** One sentence for people. */
      reason: string;
    }
  | {
      /** A start waits for another process that prefills the same template. */
      type: 'wait';
      /** The key of the template: SHA-256, hex. */
      key: string;
    };

/** Name of the `node:diagnostics_channel` of the template cache. */
export const TEMPLATE_CACHE_CHANNEL = 'llama-headstart:template-cache';

const events = channel(TEMPLATE_CACHE_CHANNEL);

export function publish(event: TemplateCacheEvent): void {
  if (events.hasSubscribers) {
    events.publish(event);
  }
}
