// After random operations in random order, the cache behaves as a simple model of the cache predicts, and never changes
// a reply.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { HeadstartError } from 'llama-headstart';
import type { StateSource } from 'llama-headstart/internal';
import { SequenceState } from 'llama-headstart/native';
import { afterAll, expect, it } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { Lab, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { rounds, Tally } from '../helpers/soak.js';

const TEMPLATES = [40, 60, 80, 100].map((count, index) => someTokens(count, index + 1));
const MESSAGE = someTokens(4, 9);
const STEPS = 2;

/** The predicted state of a template. A damaged file stays on disk until it is read. */
interface Prediction {
  disk: 'none' | 'good' | 'damaged';
  memory: boolean;
  resident: boolean;
}

/** A cache directory, the cache that is open on this directory, and the predictions for its templates. */
class ModeledCache {
  readonly directory: string;
  lab: Lab;
  readonly predictions: Prediction[] = TEMPLATES.map(() => ({ disk: 'none', memory: false, resident: false }));
  readonly #replies: readonly number[][];

  private constructor(directory: string, lab: Lab, replies: readonly number[][]) {
    this.directory = directory;
    this.lab = lab;
    this.#replies = replies;
  }

  static async create(replies: readonly number[][]): Promise<ModeledCache> {
    const directory = await temporaryDirectory();
    return new ModeledCache(directory, await openOn(directory), replies);
  }

  async start(index: number): Promise<void> {
    const predicted = this.#prediction(index);
    const before = this.lab.cache.stats();
    const { report, tokens } = await this.lab.run(TEMPLATES[index] as Int32Array, MESSAGE, STEPS);
    await this.lab.cache.flush();
    const source = predictedSource(predicted);
    expect(report.source).toBe(source);
    expect(tokens).toEqual(this.#replies[index]);
    const corruptions = source === 'prefill' && predicted.disk === 'damaged' ? 1 : 0;
    const after = this.lab.cache.stats();
    expect(after.corruptions - before.corruptions).toBe(corruptions);
    expect([after.hits - before.hits, after.misses - before.misses]).toEqual(source === 'prefill' ? [0, 1] : [1, 0]);
    if (source === 'prefill') {
      predicted.disk = 'good';
    }
    predicted.memory = true;
    for (const prediction of this.predictions) {
      prediction.resident = false; // only one template can be resident
    }
    predicted.resident = true;
  }

  /**
   * Aborts a start. The start may already have ended, so this function reads the template's state from the cache. The
   * entries of other templates must stay in memory and on disk, but these templates may stop being resident.
   */
  async abort(index: number): Promise<void> {
    const controller = new AbortController();
    const started = this.lab.start(TEMPLATES[index] as Int32Array, { signal: controller.signal });
    controller.abort();
    await started.catch((error: unknown) => expect(error).toMatchObject({ code: 'ABORTED' }));
    await this.lab.cache.flush();
    const list = await this.lab.cache.list();
    for (const [other, prediction] of this.predictions.entries()) {
      const key = this.lab.prefixCache.keyring().keyOf(TEMPLATES[other] as Int32Array);
      const tiers = list.find((entry) => entry.key === key)?.tiers ?? [];
      prediction.resident = tiers.includes('resident');
      if (other === index) {
        prediction.memory = tiers.includes('memory');
        prediction.disk = await stateOf(await this.#path(index));
      }
    }
    expect(this.predictions.filter(({ resident }) => resident).length).toBeLessThanOrEqual(1);
    await this.checkCounts();
  }

  async damage(index: number): Promise<void> {
    const path = await this.#path(index);
    const bytes = await readFile(path).catch(() => undefined);
    if (bytes !== undefined) {
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 4;
      await writeFile(path, bytes);
      const predicted = this.#prediction(index);
      // A second flip of the same bit repairs the file.
      predicted.disk = predicted.disk === 'damaged' ? 'good' : 'damaged';
    }
  }

  async remove(index: number): Promise<void> {
    await rm(await this.#path(index), { force: true });
    this.#prediction(index).disk = 'none';
  }

  async invalidate(index: number): Promise<void> {
    await this.lab.cache.invalidate({ tokens: TEMPLATES[index] as Int32Array });
    Object.assign(this.#prediction(index), { disk: 'none', memory: false, resident: false });
  }

  async evict(): Promise<void> {
    const { entries } = this.lab.cache.stats();
    const pruned = await this.lab.cache.prune({ maxEntries: 0 });
    expect(pruned.entries).toBeLessThanOrEqual(entries);
    for (const prediction of this.predictions) {
      prediction.disk = 'none';
    }
  }

  async verify(): Promise<void> {
    const damaged = this.predictions.filter(({ disk }) => disk === 'damaged').length;
    const good = this.predictions.filter(({ disk }) => disk === 'good').length;
    expect(await this.lab.cache.verify()).toMatchObject({ corrupt: damaged, intact: good });
    for (const prediction of this.predictions) {
      prediction.disk = prediction.disk === 'damaged' ? 'none' : prediction.disk;
    }
  }

  /** Writes the files that a killed process leaves, and opens the cache again. The cache must remove these files. */
  async crash(index: number): Promise<void> {
    await this.lab.close();
    const owner = `${index}`.repeat(16);
    await writeFile(`${await this.#path(index)}.${owner}.0.tmp`, 'half of an entry');
    await writeFile(join(this.directory, `owner_${owner}.lock`), '');
    await writeFile(join(this.directory, `template_${`${index}`.repeat(64)}.lock`), '');
    await this.restart();
    const names = await readdir(this.directory);
    expect(names.filter((name) => /\.(tmp|lock)$/.test(name))).toEqual([]);
  }

  async restart(): Promise<void> {
    await this.lab.close();
    this.lab = await openOn(this.directory);
    for (const prediction of this.predictions) {
      Object.assign(prediction, { memory: false, resident: false });
    }
    await this.checkCounts();
  }

  /** Checks that the files and the statistics agree with the predictions. */
  async checkCounts(): Promise<void> {
    const names = (await readdir(this.directory)).filter((name) => name.endsWith('.kv'));
    expect(names).toHaveLength(this.predictions.filter(({ disk }) => disk !== 'none').length);
    await this.lab.cache.list();
    expect(this.lab.cache.stats().entries).toBe(names.length);
  }

  #prediction(index: number): Prediction {
    return this.predictions[index] as Prediction;
  }

  async #path(index: number): Promise<string> {
    return join(
      this.directory,
      `template_${this.lab.prefixCache
        .keyring()
        .keyOf(TEMPLATES[index] as Int32Array)
        .slice(0, 16)}.kv`,
    );
  }
}

function predictedSource({ resident, memory, disk }: Prediction): StateSource {
  if (resident) {
    return 'resident';
  }
  if (memory) {
    return 'memory';
  }
  return disk === 'good' ? 'disk' : 'prefill';
}

/** Opens a cache in which one template can be resident, and all templates can be in memory. */
function openOn(directory: string): Promise<Lab> {
  return Lab.open({ path: microModel('dense'), directory, residents: 1, kvCells: 512 });
}

async function stateOf(path: string): Promise<Prediction['disk']> {
  try {
    (await SequenceState.readFile(path)).close();
    return 'good';
  } catch (error) {
    return HeadstartError.isInstance(error, 'ENTRY_MISSING') ? 'none' : 'damaged';
  }
}

/** Computes, without the cache, the tokens that the model generates after each template and the message. */
async function uncachedReplies(): Promise<number[][]> {
  const lab = await Lab.open({ path: microModel('dense') });
  const all: number[][] = [];
  for (const template of TEMPLATES) {
    all.push((await lab.run(template, MESSAGE, STEPS, { cache: false })).tokens);
  }
  await lab.close();
  return all;
}

const index = fc.nat({ max: TEMPLATES.length - 1 });
const step = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(fc.constant('start' as const), index) },
  fc.tuple(fc.constantFrom('abort', 'damage', 'remove', 'invalidate', 'crash'), index),
  fc.tuple(fc.constantFrom('evict', 'verify', 'restart', 'checkCounts'), fc.constant(0)),
);

const sequences = new Tally('random sequences of operations');
afterAll(() => sequences.done());

it('a cache has the predicted state after random starts, aborts, damage, evictions, crashes and restarts', async () => {
  const reference = await uncachedReplies();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 14 }), async (steps) => {
      sequences.tried++;
      const cache = await ModeledCache.create(reference);
      try {
        for (const [operation, template] of steps) {
          await cache[operation](template);
        }
      } catch (error) {
        sequences.wrong.push(String(error));
        throw error;
      } finally {
        await cache.lab.close();
      }
    }),
    { numRuns: rounds(12, 300), seed: 5, endOnFailure: process.env.LLAMA_HEADSTART_SOAK === undefined },
  );
});
