// In the default layout, the last digits of logits depend on the places of cells and on the other sequences in a batch.
// This noise comes from llama.cpp, not from the cache: warm sessions differ from cold runs by no more than cold runs
// differ from each other.
import { AgentServer, type Session } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, agentOptions, startAgent } from '../helpers/agents.js';
import { firstLogits, numberedMessage, openNumbered, shuffled } from '../helpers/reproducible.js';
import { rounds, variants } from '../helpers/soak.js';

const MODELS = ['dense-quantised', 'wide-q4_k', 'sliding-window', 'recurrent'] as const;
const NUMBERS = Array.from({ length: rounds(12, 32) }, (_, number) => number);
/** The number of rounds of cold runs that determine the noise. */
const COLD_ROUNDS = 6;

const firstLogitsOf = (session: Session, number: number): Promise<Float32Array> =>
  firstLogits(() => session.send(numberedMessage(number), { maxTokens: 3 }));

function distance(a: Float32Array = new Float32Array([Number.NaN]), b: Float32Array = new Float32Array()): number {
  return a.reduce((most, value, index) => Math.max(most, Math.abs(value - (b[index] ?? Number.NaN))), 0);
}

/** Returns the first logits of a session in a new context without the cache. */
async function coldAlone(settings: AgentSettings, number: number): Promise<Float32Array> {
  const agent = await AgentServer.initialize(agentOptions(settings));
  try {
    return await firstLogitsOf(await openNumbered(agent, number, false), number);
  } finally {
    await agent.close();
  }
}

/** Returns the first logits of sessions that run at the same time without the cache. `round` selects their order. */
async function coldTogether(settings: AgentSettings, round: number): Promise<Float32Array[]> {
  const agent = await AgentServer.initialize(agentOptions(settings));
  try {
    const all: Float32Array[] = [];
    await Promise.all(
      shuffled(NUMBERS.length, round).map(async (number) => {
        const session = await openNumbered(agent, number, false);
        all[number] = await firstLogitsOf(session, number);
      }),
    );
    return all;
  } finally {
    await agent.close();
  }
}

describe.each(variants(MODELS, (name) => name !== 'wide-q4_k'))('in the default layout, on the %s model,', (name) => {
  it('warm sessions differ from cold runs by no more than cold runs differ from each other', async () => {
    const settings: AgentSettings = { name, contextSize: 512, batchSize: 128, nSeqMax: 8 };
    const cold = await Promise.all(NUMBERS.map((number) => coldAlone(settings, number)));
    const runs = [cold];
    let noise = 0;
    for (let round = 1; round <= COLD_ROUNDS; round++) {
      const run = await coldTogether(settings, round);
      for (const other of runs) {
        noise = Math.max(noise, ...NUMBERS.map((number) => distance(run[number], other[number])));
      }
      runs.push(run);
    }

    const agent = await startAgent(settings);
    const sessions = await Promise.all(NUMBERS.map((number) => openNumbered(agent, number)));
    const warm = await Promise.all(sessions.map(firstLogitsOf));
    const furthest = Math.max(...NUMBERS.map((number) => distance(warm[number], cold[number])));
    expect(furthest).toBeLessThanOrEqual(noise);
    // The logits of other sessions differ by much more than noise.
    const others = NUMBERS.slice(1).map((number) => distance(warm[number], cold[number - 1]));
    expect(furthest).toBeLessThan(Math.min(...others));
  });
});
