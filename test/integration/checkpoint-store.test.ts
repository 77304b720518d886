// `Checkpoints` keeps checkpoints of several conversations within one budget.
import { Checkpoints } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { leaseBusy } from '../helpers/open-engine.js';
import { openLab } from '../helpers/open-lab.js';

const TOKENS = someTokens(100, 1);
const OTHER = someTokens(100, 2);

/**
 * Opens a recurrent model. `at` captures its state after the first `length` tokens. All states have about `byteLength`
 * bytes.
 */
async function openStates() {
  const { engine } = await openLab({ path: microModel('recurrent') });
  const sequence = await leaseBusy(engine);
  const capture = async (tokens: Int32Array): Promise<SequenceState> => {
    await sequence.clear();
    await engine.prefill(sequence, tokens);
    return sequence.capture();
  };
  const first = await capture(TOKENS.slice(0, 10));
  const { byteLength } = first;
  first.close();
  return { at: (length: number, of = TOKENS) => capture(of.slice(0, length)), byteLength };
}

const lengthOf = (state: SequenceState | undefined) => state?.tokens.length;

describe('a conversation', () => {
  it('keeps the checkpoints of its two newest turns', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    for (const length of [10, 20, 30]) {
      checkpoints.put(owner, await at(length), true);
    }
    const lengths = [TOKENS, TOKENS.slice(0, 29), TOKENS.slice(0, 19), OTHER].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(lengths).toEqual([30, 20, undefined, undefined]);
  });

  it('keeps the checkpoints of its newest step and of the turn to which this step belongs', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    checkpoints.put(owner, await at(10), true);
    checkpoints.put(owner, await at(20), true);
    checkpoints.put(owner, await at(30), false);
    checkpoints.put(owner, await at(40), false);
    const lengths = [TOKENS, TOKENS.slice(0, 40), TOKENS.slice(0, 20)].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(lengths).toEqual([40, 20, undefined]);
  });

  it('drops checkpoints whose tokens are no longer a prefix of the newest checkpoint', async () => {
    const { at } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(), {}];
    checkpoints.put(owner, await at(10), true);
    checkpoints.put(owner, await at(20), false);
    checkpoints.put(owner, await at(30, OTHER), false); // the conversation was shortened during the turn
    checkpoints.put(owner, await at(40, OTHER), false);
    expect([TOKENS, OTHER, OTHER.slice(0, 35)].map((prompt) => lengthOf(checkpoints.get(owner, prompt)))).toEqual([
      undefined,
      40,
      30,
    ]);
  });
});

describe('the budget of all checkpoints', () => {
  it('evicts the least recently used checkpoint, and counts a checkpoint that forks share once', async () => {
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

  it('refuses a state that is larger than the budget, and later states of at least as many tokens', async () => {
    const { at, byteLength } = await openStates();
    const [checkpoints, owner] = [new Checkpoints(byteLength / 2), {}];
    expect(checkpoints.mayFit(owner, 10)).toBe(true);
    checkpoints.put(owner, await at(10), true);
    expect(checkpoints.get(owner)).toBeUndefined();
    expect(checkpoints.mayFit(owner, 10)).toBe(false);
    expect(checkpoints.mayFit(owner, 9)).toBe(true);
  });

  it('is free again after all owners have dropped their checkpoints, or after `clear`', async () => {
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
