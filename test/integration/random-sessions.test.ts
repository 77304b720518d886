// Random turns, tools, aborts, forks, saves, compactions and closes, of several programs at once on one agent with too few sequences
// and cells for all of them: what each session came to is what it comes to alone, and nothing is left behind.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, EXACT, NOTHING_HELD, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { NOT_OBSERVED, type Observe, replay, runProgram, stepsOf } from '../helpers/random-sessions.js';
import { type Row, withLogits, withRows } from '../helpers/reproducible.js';

// To look for more: LLAMA_HEADSTART_RANDOM_SEED=7 LLAMA_HEADSTART_RANDOM_STEPS=200 npm test -- random-sessions
const seed = Number(process.env.LLAMA_HEADSTART_RANDOM_SEED ?? 1);
const steps = Number(process.env.LLAMA_HEADSTART_RANDOM_STEPS ?? 15);
setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');

const PROGRAMS = 4;

const SMALL: AgentSettings = {
  contextSize: 768,
  nSeqMax: 2,
  batchSize: 128,
  maxResidentTemplates: 1,
  maxSavedBytes: 2 ** 20,
};
const EXACTLY: AgentSettings = { ...SMALL, reproducible: true };

/** What a call came to is told so, and compared so with what it comes to alone. */
interface Comparison {
  observe: Observe;
  /** @returns whether the two conversations are still the same */
  compare: (told: unknown, alone: unknown) => boolean;
}

const TO_THE_BIT: Comparison = {
  observe: withLogits,
  compare: (told, alone) => {
    expect(told).toEqual(alone);
    return true;
  },
};

/** The last digits hang on company, and now and then a choice on them: up to there the logits are near. */
const NOISE = 0.05;
type Told = { value: unknown; rows: Row[] };
const NEARLY: Comparison = {
  observe: withRows,
  compare: (told, alone) => {
    const [a, b] = [told, alone] as [Told, Told];
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
  ['one cache for all', { ...SMALL, ...EXACT, kvCells: 1024 }, NEARLY],
  ['split streams', { ...SMALL, ...EXACT, kvLayout: 'split', maxResidentTemplates: 0 }, NEARLY],
  ['one cache for all, recurrent', { ...SMALL, ...EXACT, name: 'recurrent' }, NEARLY],
  ['one cache for all, a sliding window', { ...SMALL, ...EXACT, name: 'sliding-window' }, NEARLY],
  ['reproducible, dense', { ...EXACTLY, name: 'dense-quantised' }, TO_THE_BIT],
  ['reproducible, a sliding window', { ...EXACTLY, name: 'sliding-window' }, TO_THE_BIT],
  ['reproducible, recurrent', { ...EXACTLY, name: 'recurrent' }, TO_THE_BIT],
  ['reproducible, hybrid', { ...EXACTLY, name: 'hybrid' }, TO_THE_BIT],
];

describe.each(AGENTS)('%s', (_, settings, { observe, compare }) => {
  it(`each of many sessions comes to what it comes to alone (seed ${seed})`, { timeout: 600_000 }, async () => {
    const directory = await temporaryDirectory();
    const agent = await startAgent({ ...settings, cacheDir: directory });
    const programs = Array.from({ length: PROGRAMS }, (_unused, index) =>
      runProgram(agent, { seed: seed * 1000 + index, steps, directory, observe }),
    );
    const histories = (await Promise.all(programs)).flat();
    await agent.templateCache.clear();
    const collected = () => {
      collectGarbage(); // some sessions were forgotten
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
    expect(compared).toBeGreaterThan(steps);
  });
});
