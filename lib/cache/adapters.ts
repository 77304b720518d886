import type { Engine } from '../engine/engine.js';
import type { RwLock } from '../engine/rw-lock.js';
import type { LoraAdapter } from '../native/lora.js';
import type { Model } from '../native/model.js';
import { loraComponent } from './key.js';
import type { PrefixCache } from './prefix-cache.js';

/** An adapter's file and how strongly it is applied. */
export interface AdapterFile {
  path: string;
  /** @default 1 */
  scale?: number;
}

interface AdaptersParts {
  model: Model;
  engine: Engine;
  cache: PrefixCache;
  lock: RwLock;
  /** What was computed before is to be forgotten. */
  onApplied: () => void;
}

/** The LoRA adapters of an engine's context. What was computed under others is never used again. */
export class Adapters {
  readonly #parts: AdaptersParts;
  #applied: LoraAdapter[] = [];

  constructor(parts: AdaptersParts) {
    this.#parts = parts;
  }

  /**
   * Applies these adapters and no others, once no turn and no start computes. Open sessions go on from their messages.
   *
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID`, `INVALID_ARGUMENT`, `ABORTED`, `CLOSED`; nothing changed then.
   */
  async set(files: readonly AdapterFile[], signal?: AbortSignal): Promise<void> {
    const { model, lock } = this.#parts;
    const loaded: LoraAdapter[] = [];
    try {
      const described: { adapter: LoraAdapter; contentHash: string; scale: number }[] = [];
      for (const { path, scale = 1 } of files) {
        const adapter = await model.loadLora(path, { signal });
        loaded.push(adapter);
        described.push({ adapter, contentHash: await adapter.contentHash({ signal }), scale });
      }
      await lock.write(() => this.#apply(described), signal);
    } catch (error) {
      closeAll(loaded);
      throw error;
    }
    closeAll(this.#applied);
    this.#applied = loaded;
  }

  async #apply(loras: { adapter: LoraAdapter; contentHash: string; scale: number }[]): Promise<void> {
    const { engine, cache, onApplied } = this.#parts;
    await engine.context.setLoras(loras.map(({ adapter, scale }) => ({ adapter, scale })));
    cache.setLora(loraComponent(loras));
    while (engine.sessions.evictIdle()) {
      // Each goes on from its template and its own messages.
    }
    engine.clearSwapped();
    onApplied();
  }
}

function closeAll(adapters: readonly LoraAdapter[]): void {
  for (const adapter of adapters) {
    adapter.close();
  }
}
