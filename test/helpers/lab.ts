// A template cache without the chat layer. It takes arrays of token ids, and returns greedy tokens and logits.
import type { StartReport } from 'llama-headstart';
import {
  Engine,
  fingerprintModel,
  type KeyComponents,
  keyComponents,
  PrefixCache,
  type PrefixCacheOptions,
  RwLock,
  type StartOptions,
  StateStore,
  TemplateCache,
  type TenantOptions,
} from 'llama-headstart/internal';
import { type ContextOptions, type KvLayout, Model, systemInfo } from 'llama-headstart/native';
import { random } from './random.js';

export interface LabOptions {
  path: string;
  directory?: string | undefined;
  layout?: KvLayout;
  /** Number of sequences for sessions. @default 2 */
  sessions?: number;
  /** Number of sequences for resident templates. With the layout `split` the number is always 0. @default 2 */
  residents?: number;
  kvCells?: number;
  batchSize?: number;
  flashAttention?: boolean;
  /** Additional options of the context. */
  context?: Pick<ContextOptions, 'keyType' | 'valueType' | 'fullSlidingWindow' | 'microBatchSize'>;
  /** Components of the cache key that replace the real components. */
  components?: Partial<KeyComponents>;
  /**
   * Additional options of the cache. By default the cache reuses only exact matches and requires no free disk space.
   */
  cache?: Partial<PrefixCacheOptions> & { maxMemoryBytes?: number };
}

/** A template of the template cache: the tokens of a shared prefix. No chat template is involved. */
export interface TokenTemplate extends TenantOptions {
  tokens: Int32Array;
}

export interface Continuation {
  report: StartReport;
  /** The most likely token of each step. */
  tokens: number[];
  /** The logits of each step. */
  logits: Float32Array[];
}

/** A model, an engine and a template cache: the parts of an agent that load a template into a sequence. */
export class Lab {
  readonly model: Model;
  readonly engine: Engine;
  readonly prefixCache: PrefixCache;
  readonly cache: TemplateCache<TokenTemplate>;

  private constructor(model: Model, engine: Engine, prefixCache: PrefixCache) {
    this.model = model;
    this.engine = engine;
    this.prefixCache = prefixCache;
    const find = async ({ tokens }: TokenTemplate) => ({ tokens });
    this.cache = new TemplateCache({ cache: prefixCache, engine, model, lock: new RwLock(), find });
  }

  static async open(options: LabOptions): Promise<Lab> {
    const { path, directory, layout = 'unified', sessions = 2, kvCells = 2048, batchSize = 128 } = options;
    const { maxMemoryBytes = 2 ** 28, ...cache } = options.cache ?? {};
    const residents = layout === 'split' ? 0 : (options.residents ?? 2);
    const model = await Model.load({ path });
    const context = await model.createContext({
      kvCells,
      maxSequences: sessions + residents,
      maxOutputs: sessions + residents,
      batchSize,
      nThreads: 1,
      kvLayout: layout,
      flashAttention: options.flashAttention ?? true,
      ...options.context,
    });
    const engine = new Engine(context, { residentSequences: residents, states: new StateStore(maxMemoryBytes) });
    const components = keyComponents({
      llamaVersion: systemInfo().llamaVersion,
      fingerprint: await fingerprintModel(path),
      model: model.info,
      metadata: model.metadata(),
      context: context.info,
    });
    Object.assign(components, options.components);
    const prefixCache = await PrefixCache.open({
      engine,
      components,
      dir: directory,
      minFreeDiskBytes: 0,
      reuse: 'exact',
      ...cache,
    });
    return new Lab(model, engine, prefixCache);
  }

  get context(): Engine['context'] {
    return this.engine.context;
  }

  /**
   * Loads a template into an unused sequence, prefills a message, generates `steps` tokens, and releases the sequence.
   */
  async run(template: Int32Array, message: Int32Array, steps: number, options?: StartOptions): Promise<Continuation> {
    const sequence = this.engine.createSequence();
    await this.engine.sessions.lease(sequence);
    try {
      const report = await this.prefixCache.start(sequence, template, options);
      const tokens: number[] = [];
      const logits: Float32Array[] = [];
      let batch = message;
      for (let step = 0; step < steps; step++) {
        const { token, logits: row } = await this.engine.decode({
          sequence,
          tokens: batch,
          logits: true,
        });
        logits.push(row as Float32Array);
        tokens.push(token);
        batch = Int32Array.of(token);
      }
      return { report, tokens, logits };
    } finally {
      this.engine.sessions.release(sequence);
    }
  }

  /** Loads a template into an unused sequence, to fill the cache. Prefills no message. */
  async start(template: Int32Array, options?: StartOptions): Promise<StartReport> {
    return (await this.run(template, new Int32Array(), 0, options)).report;
  }

  async close(): Promise<void> {
    await this.prefixCache.close();
    await this.engine.close();
    await this.model.close();
  }
}

/** Returns pseudo-random token ids from 10 to 309. The same seed gives the same ids. */
export function someTokens(count: number, seed: number): Int32Array {
  const below = random(seed);
  return Int32Array.from({ length: count }, () => 10 + below(300));
}
