import type { Engine } from '../engine/engine.js';
import type { RwLock } from '../engine/rw-lock.js';
import type { LoraAdapter } from '../native/lora.js';
import type { Model } from '../native/model.js';
import { loraComponent } from './key.js';
import type { PrefixCache } from './prefix-cache.js';

/** The file of an adapter and its scale. */
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
}

/** Sets the LoRA adapters of an engine's context, and drops all states that were computed with other adapters. */
export class Adapters {
  readonly #parts: AdaptersParts;
  #applied: LoraAdapter[] = [];

  constructor(parts: AdaptersParts) {
    this.#parts = parts;
  }

  /**
   * Replaces all adapters. First waits until no turn or session start holds the lock. Open sessions lose their KV
   * states and continue from their messages.
   *
   * @throws HeadstartError `LORA_NOT_FOUND`, `LORA_INVALID`, `INVALID_ARGUMENT`, `ABORTED`, `CLOSED`. After an error,
   *   the adapters are unchanged.
   */
  async set(files: readonly AdapterFile[], signal?: AbortSignal): Promise<void> {
    const { model, lock } = this.#parts;
    const loaded: LoraAdapter[] = [];
    try {
      const loras: { adapter: LoraAdapter; contentHash: string; scale: number }[] = [];
      for (const { path, scale = 1 } of files) {
        const adapter = await model.loadLora(path, { signal });
        loaded.push(adapter);
        loras.push({ adapter, contentHash: await adapter.contentHash({ signal }), scale });
      }
      await lock.write(() => this.#apply(loras), signal);
    } catch (error) {
      closeAll(loaded);
      throw error;
    }
    closeAll(this.#applied);
    this.#applied = loaded;
  }

  async #apply(loras: { adapter: LoraAdapter; contentHash: string; scale: number }[]): Promise<void> {
    const { engine, cache } = this.#parts;
    await engine.context.setLoras(loras.map(({ adapter, scale }) => ({ adapter, scale })));
    cache.setLora(loraComponent(loras));
    engine.discardSessions();
  }
}

function closeAll(adapters: readonly LoraAdapter[]): void {
  for (const adapter of adapters) {
    adapter.close();
  }
}
