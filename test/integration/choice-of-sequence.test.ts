// Which of several earlier requests a new prompt continues, and in which sequence.
import { ConversationSequence } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import type { Lab } from '../helpers/lab.js';
import { someTokens } from '../helpers/lab.js';
import { type MicroModelName, microModel } from '../helpers/models.js';
import { openLab } from '../helpers/open-lab.js';

const { signal } = new AbortController();

interface Request {
  affinity?: string;
  tenant?: string;
}

/** Opens the sequence of a request, and decodes the prompt of the request. The request has not ended yet. */
async function begin({ engine, prefixCache: cache }: Lab, prompt: Int32Array, request: Request = {}) {
  const setup = { engine, cache, template: new Int32Array(), useCache: true, kind: 'request' as const };
  const sequence = new ConversationSequence({ ...setup, ...request });
  sequence.setBusy(true);
  const { cachedTokens: cached } = await sequence.align(prompt, signal);
  await sequence.decode((position) => prompt.subarray(position), { signal });
  return { sequence, cached };
}

/** Runs a whole request. Returns the number of tokens that it did not have to decode. */
async function run(lab: Lab, prompt: Int32Array, request?: Request): Promise<number> {
  const { sequence, cached } = await begin(lab, prompt, request);
  sequence.abandon();
  return cached;
}

const concat = (...parts: Int32Array[]) => Int32Array.from(parts.flatMap((part) => [...part]));
const PROMPT = someTokens(60, 1);

describe('of two requests with the same prompt', () => {
  const affinities = (lab: Lab) => [...lab.engine.sessions.leased].map(({ affinity }) => affinity).sort();

  it.each<MicroModelName>(['dense', 'recurrent'])('the one with the same affinity is continued (%s)', async (name) => {
    const lab = await openLab({ path: microModel(name), sessions: 4 });
    const both = [await begin(lab, PROMPT, { affinity: 'a' }), await begin(lab, PROMPT, { affinity: 'b' })];
    for (const { sequence } of both) {
      sequence.abandon();
    }
    for (const [index, affinity] of ['b', 'a'].entries()) {
      expect(await run(lab, concat(PROMPT, someTokens(20, 2 + index)), { affinity })).toBe(PROMPT.length);
      expect(affinities(lab)).toEqual(['a', 'b']); // the request has taken over the sequence with its affinity
    }
  });

  it('none is continued by a request of another tenant with the same affinity', async () => {
    const lab = await openLab({ sessions: 4 });
    await run(lab, PROMPT, { affinity: 'a', tenant: 'one' });
    expect(await run(lab, PROMPT, { affinity: 'a', tenant: 'two' })).toBe(0);
  });
});

it.each<MicroModelName>(['dense', 'hybrid'])(
  'a prefill never waits for a turn that continues its reply (%s)',
  async (name) => {
    const lab = await openLab({ path: microModel(name), sessions: 2 });
    const { sequence } = await begin(lab, PROMPT);
    sequence.makeEvictable(); // the reader of the stream pauses
    sequence.setBusy(true); // and continues
    expect(await run(lab, concat(someTokens(60, 9), PROMPT))).toBe(0);
    sequence.abandon();
  },
);
