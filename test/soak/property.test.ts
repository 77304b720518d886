// Whatever happens in whatever order, the cache does what a simple model of it says, and never changes a reply.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { HeadstartError } from 'llama-headstart';
import { SequenceState } from 'llama-headstart/native';
import { afterAll, expect, it } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { Lab, someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { rounds, Tally } from '../helpers/soak.js';

const TEMPLATES = [40, 60, 80, 100].map((count, index) => someTokens(count, index + 1));
const MESSAGE = someTokens(4, 9);
const STEPS = 2;

/** What must be true of each template. A file that was damaged is on disk still, until somebody looks. */
interface Expected {
  disk: 'none' | 'good' | 'damaged';
  memory: boolean;
  resident: boolean;
}

/** The world: a directory, a cache on it that comes and goes, and what the model says of it. */
class World {
  readonly directory: string;
  lab: Lab;
  readonly expected: Expected[] = TEMPLATES.map(() => ({ disk: 'none', memory: false, resident: false }));
  corruptions = 0;
  readonly #replies: readonly number[][];

  private constructor(directory: string, lab: Lab, replies: readonly number[][]) {
    this.directory = directory;
    this.lab = lab;
    this.#replies = replies;
  }

  static async create(replies: readonly number[][]): Promise<World> {
    const directory = await temporaryDirectory();
    return new World(directory, await openOn(directory), replies);
  }

  async start(index: number): Promise<void> {
    const expected = this.expected[index] as Expected;
    const before = this.lab.cache.stats();
    const { report, tokens } = await this.lab.run(TEMPLATES[index] as Int32Array, MESSAGE, STEPS);
    await this.lab.cache.flush();
    const tier = expected.resident
      ? 'resident'
      : expected.memory
        ? 'memory'
        : expected.disk === 'good'
          ? 'disk'
          : 'miss';
    expect(report.tier).toBe(tier);
    expect(tokens).toEqual(this.#replies[index]);
    const found = tier === 'miss' && expected.disk === 'damaged' ? 1 : 0;
    const after = this.lab.cache.stats();
    expect(after.corruptions - before.corruptions).toBe(found);
    expect([after.hits - before.hits, after.misses - before.misses]).toEqual(tier === 'miss' ? [0, 1] : [1, 0]);
    if (tier === 'miss') {
      expected.disk = 'good';
    }
    expected.memory = true;
    for (const each of this.expected) {
      each.resident = false; // there is one place
    }
    expected.resident = true;
  }

  /** It may come too late: what it left is looked at, and everything else must be as it was. */
  async abort(index: number): Promise<void> {
    const controller = new AbortController();
    const started = this.lab.start(TEMPLATES[index] as Int32Array, { signal: controller.signal });
    controller.abort();
    await started.catch((error: unknown) => expect(error).toMatchObject({ code: 'ABORTED' }));
    await this.lab.cache.flush();
    const list = await this.lab.cache.list();
    for (const [each, expected] of this.expected.entries()) {
      const key = this.lab.cache.keyOf(TEMPLATES[each] as Int32Array);
      const tiers = list.find((entry) => entry.key === key)?.tiers ?? [];
      expected.resident = tiers.includes('resident');
      if (each === index) {
        expected.memory = tiers.includes('memory');
        expected.disk = await stateOf(await this.#path(index));
      }
    }
    expect(this.expected.filter(({ resident }) => resident).length).toBeLessThanOrEqual(1);
    await this.look();
  }

  async damage(index: number): Promise<void> {
    const path = await this.#path(index);
    const bytes = await readFile(path).catch(() => undefined);
    if (bytes !== undefined) {
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 4;
      await writeFile(path, bytes);
      const expected = this.expected[index] as Expected;
      // A second flip of the same bit mends it.
      expected.disk = expected.disk === 'damaged' ? 'good' : 'damaged';
    }
  }

  async remove(index: number): Promise<void> {
    await rm(await this.#path(index), { force: true });
    (this.expected[index] as Expected).disk = 'none';
  }

  async invalidate(index: number): Promise<void> {
    await this.lab.cache.invalidate(TEMPLATES[index] as Int32Array);
    Object.assign(this.expected[index] as Expected, { disk: 'none', memory: false, resident: false });
  }

  async evict(): Promise<void> {
    const { entries } = this.lab.cache.stats();
    const pruned = await this.lab.cache.prune({ maxEntries: 0 });
    expect(pruned.entries).toBeLessThanOrEqual(entries);
    for (const each of this.expected) {
      each.disk = 'none';
    }
  }

  async verify(): Promise<void> {
    const damaged = this.expected.filter(({ disk }) => disk === 'damaged').length;
    const good = this.expected.filter(({ disk }) => disk === 'good').length;
    expect(await this.lab.cache.verify()).toMatchObject({ corrupt: damaged, intact: good });
    for (const each of this.expected) {
      each.disk = each.disk === 'damaged' ? 'none' : each.disk;
    }
  }

  /** Ends without a word: what a dead process leaves behind, a new one finds. */
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
    for (const each of this.expected) {
      Object.assign(each, { memory: false, resident: false });
    }
    await this.look();
  }

  /** The directory is counted as it is. */
  async look(): Promise<void> {
    const names = (await readdir(this.directory)).filter((name) => name.endsWith('.kv'));
    expect(names).toHaveLength(this.expected.filter(({ disk }) => disk !== 'none').length);
    await this.lab.cache.list();
    expect(this.lab.cache.stats().entries).toBe(names.length);
  }

  async #path(index: number): Promise<string> {
    return join(this.directory, `template_${this.lab.cache.keyOf(TEMPLATES[index] as Int32Array).slice(0, 16)}.kv`);
  }
}

/** With one resident place, and memory for all. */
function openOn(directory: string): Promise<Lab> {
  return Lab.open({ path: microModel('dense'), directory, residents: 1, kvCells: 512 });
}

async function stateOf(path: string): Promise<Expected['disk']> {
  try {
    (await SequenceState.readFile(path)).close();
    return 'good';
  } catch (error) {
    return HeadstartError.isInstance(error, 'ENTRY_MISSING') ? 'none' : 'damaged';
  }
}

async function replies(): Promise<number[][]> {
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
  fc.tuple(fc.constantFrom('evict', 'verify', 'restart', 'look'), fc.constant(0)),
);

const sequences = new Tally('random sequences of operations');
afterAll(() => sequences.done());

it('random sequences of starts, aborts, damages, evictions, crashes and restarts end as the model says', async () => {
  const reference = await replies();
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 14 }), async (steps) => {
      sequences.tried++;
      const world = await World.create(reference);
      try {
        for (const [what, which] of steps) {
          await world[what](which);
        }
      } catch (error) {
        sequences.wrong.push(String(error));
        throw error;
      } finally {
        await world.lab.close();
      }
    }),
    { numRuns: rounds(12, 300), seed: 5, endOnFailure: process.env.LLAMA_HEADSTART_SOAK === undefined },
  );
});
