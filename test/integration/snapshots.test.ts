// Which states of conversations are kept, within one budget for all of them.
import { Checkpoints } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { openLab } from '../helpers/open-lab.js';

const TOKENS = someTokens(100, 1);
const OTHER = someTokens(100, 2);

/** Captures what a sequence of a recurrent model holds; all states are about as large. */
async function openStates() {
  const { engine, context } = await openLab({ path: microModel('recurrent') });
  const capture = async (tokens: Int32Array): Promise<SequenceState> => {
    await context.removeSequence(0);
    await engine.prefill(0, tokens, 0);
    return context.captureSequence(0, tokens);
  };
  const first = await capture(TOKENS.slice(0, 10));
  const { byteLength } = first;
  first.close();
  return { at: (length: number, of = TOKENS) => capture(of.slice(0, length)), byteLength };
}

const lengthOf = (state: SequenceState | undefined) => state?.tokens.length;

describe('of a conversation', () => {
  it('the state at its newest turn is kept, and the one that the turn went on from', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    for (const length of [10, 20, 30]) {
      checkpoints.put(owner, await at(length), true);
    }
    const found = [TOKENS, TOKENS.slice(0, 29), TOKENS.slice(0, 19), OTHER].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(found).toEqual([30, 20, undefined, undefined]);
  });

  it('the state at its newest step is kept beside that of its turn', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    checkpoints.put(owner, await at(10), true);
    checkpoints.put(owner, await at(20), true);
    checkpoints.put(owner, await at(30), false);
    checkpoints.put(owner, await at(40), false);
    const found = [TOKENS, TOKENS.slice(0, 40), TOKENS.slice(0, 20)].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(found).toEqual([40, 20, undefined]);
  });

  it('states go that no prompt begins with any more', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    checkpoints.put(owner, await at(10), true);
    checkpoints.put(owner, await at(20), false);
    checkpoints.put(owner, await at(30, OTHER), false); // shortened in the middle of its turn
    checkpoints.put(owner, await at(40, OTHER), false);
    expect([TOKENS, OTHER, OTHER.slice(0, 35)].map((prompt) => lengthOf(checkpoints.get(owner, prompt)))).toEqual([
      undefined,
      40,
      30,
    ]);
  });
});

describe('the budget', () => {
  it('lets go of what was used least recently, and counts what forks share once', async () => {
    const { at, byteLength } = await openStates();
    const checkpoints = new Checkpoints(2.5 * byteLength);
    const [source, fork, other] = [{}, {}, {}];
    checkpoints.put(source, await at(10), true);
    checkpoints.put(source, await at(20), true);
    checkpoints.share(source, fork);
    expect(lengthOf(checkpoints.get(fork, TOKENS))).toBe(20);
    checkpoints.drop(source);
    expect(lengthOf(checkpoints.get(fork, TOKENS))).toBe(20);
    checkpoints.put(other, await at(10, OTHER), true);
    expect(lengthOf(checkpoints.get(fork, TOKENS))).toBe(20);
    expect(checkpoints.get(fork, TOKENS.slice(0, 20))).toBeUndefined();
    expect(lengthOf(checkpoints.get(other))).toBe(10);
  });

  it('keeps no state that is larger, and does not ask for one of as many tokens again', async () => {
    const { at, byteLength } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(byteLength / 2), {}];
    expect(checkpoints.mayFit(owner, 10)).toBe(true);
    checkpoints.put(owner, await at(10), true);
    expect(checkpoints.get(owner)).toBeUndefined();
    expect(checkpoints.mayFit(owner, 10)).toBe(false);
    expect(checkpoints.mayFit(owner, 9)).toBe(true);
  });

  it('is free again when all conversations have gone, or what the model computes has changed', async () => {
    const { at } = await openStates();
    const [checkpoints, owners] = [new Checkpoints(), [{}, {}] as const];
    const states = [await at(10), await at(20)] as const;
    checkpoints.put(owners[0], states[0], true);
    checkpoints.put(owners[1], states[1], true);
    checkpoints.share(owners[0], owners[1]);
    checkpoints.drop(owners[0]);
    checkpoints.clear();
    for (const state of states) {
      expect(() => state.byteLength).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    }
    expect(owners.map((owner) => checkpoints.get(owner))).toEqual([undefined, undefined]);
  });
});
