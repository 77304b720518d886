// Several programs run random turns, tools, aborts, forks, saves, compactions and closes at the same time. They share
// one agent that has too few sequences and cells for all. Each session gives the same results as alone, and nothing
// stays in use.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { NOT_OBSERVED, type Observe, replay, runProgram, stepsOf } from '../helpers/random-sessions.js';
import { type Row, withLogits, withRows } from '../helpers/reproducible.js';
import { rounds, variants } from '../helpers/soak.js';

// To try other random sessions:
// LLAMA_HEADSTART_RANDOM_SEED=7 LLAMA_HEADSTART_RANDOM_STEPS=200 npm test -- random-sessions
const seed = Number(process.env.LLAMA_HEADSTART_RANDOM_SEED ?? 1);
const steps = Number(process.env.LLAMA_HEADSTART_RANDOM_STEPS ?? rounds(6, 8));
setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

const PROGRAMS = rounds(3, 4);

const SMALL: AgentSettings = {
  contextSize: 768,
  nSeqMax: 2,
  batchSize: 128,
  maxResidentTemplates: 1,
  maxMemoryBytes: 2 ** 20,
};
const EXACTLY: AgentSettings = { ...SMALL, reproducible: true };

/** Records the outcome of each call, and compares it with the outcome of the same call of a session that runs alone. */
interface Comparison {
  observe: Observe;
  /** @returns whether both conversations still have the same tokens */
  compare: (shared: unknown, alone: unknown) => boolean;
}

const TO_THE_BIT: Comparison = {
  observe: withLogits,
  compare: (shared, alone) => {
    expect(shared).toEqual(alone);
    return true;
  },
};

/**
 * Other sequences in the batch change logits by less than this. The change may alter a sampled token. After such a
 * token, the conversations differ and are no longer compared.
 */
const NOISE = 0.05;
type Outcome = { value: unknown; rows: Row[] };
const NEARLY: Comparison = {
  observe: withRows,
  compare: (shared, alone) => {
    const [a, b] = [shared, alone] as [Outcome, Outcome];
    for (const [index, { logits, token }] of a.rows.entries()) {
      const other = b.rows[index] as Row;
      expect(distance(logits, other.logits)).toBeLessThan(NOISE);
      if (token !== other.token) {
        return false;
      }
    }
    expect(a.value).toEqual(b.value);
    return true;
  },
};
const distance = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, value, index) => Math.max(most, Math.abs(value - (b[index] as number))), 0);

const AGENTS: [title: string, settings: AgentSettings, comparison: Comparison][] = [
  ['the unified layout', { ...SMALL, ...EXACT, kvCells: 1024 }, NEARLY],
  ['the split layout', { ...SMALL, ...EXACT, kvLayout: 'split', maxResidentTemplates: 0 }, NEARLY],
  ['the unified layout, a recurrent model', { ...SMALL, ...EXACT, name: 'recurrent' }, NEARLY],
  ['the unified layout, a sliding-window model', { ...SMALL, ...EXACT, name: 'sliding-window' }, NEARLY],
  ['reproducible mode, a dense model', { ...EXACTLY, name: 'dense-quantised' }, TO_THE_BIT],
  ['reproducible mode, a sliding-window model', { ...EXACTLY, name: 'sliding-window' }, TO_THE_BIT],
  ['reproducible mode, a recurrent model', { ...EXACTLY, name: 'recurrent' }, TO_THE_BIT],
  ['reproducible mode, a hybrid model', { ...EXACTLY, name: 'hybrid' }, TO_THE_BIT],
];

/** `npm test` runs only these agents. They cover both layouts, reproducible mode, and three kinds of memory. */
const REPRESENTATIVES = [
  'the unified layout',
  'the split layout',
  'reproducible mode, a sliding-window model',
  'reproducible mode, a hybrid model',
];

describe.each(variants(AGENTS, ([title]) => REPRESENTATIVES.includes(title)))(
  'with %s',
  (_, settings, { observe, compare }) => {
    it(`many random sessions give the same replies as each session alone (seed ${seed})`, {
      timeout: 600_000,
    }, async () => {
      const directory = await temporaryDirectory();
      const agent = await startAgent({ ...settings, cacheDir: directory });
      const copies = !settings.reproducible;
      const programs = Array.from({ length: PROGRAMS }, (_unused, index) =>
        runProgram(agent, { seed: seed * 1000 + index, steps, directory, observe, copies }),
      );
      const histories = (await Promise.all(programs)).flat();
      await agent.templateCache.clear();
      const collected = () => {
        collectGarbage(); // the programs leave some sessions open
        return agent.health();
      };
      await expect.poll(collected, { timeout: 20_000 }).toMatchObject({ ...NOTHING_HELD, savedBytes: 0 });

      const alone = await startAgent(settings);
      let compared = 0;
      for (const history of histories) {
        const expected = await replay(alone, history, observe);
        for (const [index, { outcome }] of stepsOf(history).entries()) {
          if (outcome === NOT_OBSERVED) {
            continue;
          }
          compared++;
          if (!compare(outcome, expected[index])) {
            break;
          }
        }
      }
      expect(compared).toBeGreaterThan(steps / 4); // how many steps are turns depends on the seed
    });
  },
);
