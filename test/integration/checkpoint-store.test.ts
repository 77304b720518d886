// `Checkpoints` knows which states in the store belong to which conversation.
import { Checkpoints, StateStore, type StoredState } from 'llama-headstart/internal';
import type { SequenceState } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { microModel } from '../helpers/models.js';
import { leaseBusy } from '../helpers/open-engine.js';
import { openLab } from '../helpers/open-lab.js';

const TOKENS = someTokens(100, 1);
const OTHER = someTokens(100, 2);

const newOwner = () => ({ inProgress: false });

/**
 * Opens a recurrent model and a store of `budgetInStates` states. All states have about the same size.
 *
 * @returns `keep`, which keeps a checkpoint of the first `length` tokens; and all captured states
 */
async function openCheckpoints(budgetInStates = Number.POSITIVE_INFINITY) {
  const { engine } = await openLab({ path: microModel('recurrent') });
  const sequence = await leaseBusy(engine);
  const captured: SequenceState[] = [];
  const capture = async (tokens: Int32Array): Promise<SequenceState> => {
    await sequence.clear();
    await engine.prefill(sequence, tokens);
    const state = await sequence.capture();
    captured.push(state);
    return state;
  };
  const first = await capture(TOKENS.slice(0, 10));
  const states = new StateStore(budgetInStates * first.byteLength);
  first.close();
  const checkpoints = new Checkpoints(states);
  const keep = (owner: { inProgress: boolean }, length: number, beginsTurn: boolean, of = TOKENS) => {
    const tokens = of.slice(0, length);
    return checkpoints.keep({ owner, group: '', tokens, beginsTurn }, () => capture(tokens));
  };
  return { states, checkpoints, keep, captured };
}

const lengthOf = (stored: StoredState | undefined) => stored?.tokens.length;

describe('a conversation', () => {
  it('keeps the checkpoints of its two newest turns', async () => {
    const { checkpoints, keep } = await openCheckpoints();
    const owner = newOwner();
    for (const length of [10, 20, 30]) {
      await keep(owner, length, true);
    }
    const lengths = [TOKENS, TOKENS.slice(0, 29), TOKENS.slice(0, 19), OTHER].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(lengths).toEqual([30, 20, undefined, undefined]);
  });

  it('keeps the checkpoints of its newest step and of the turn to which this step belongs', async () => {
    const { checkpoints, keep } = await openCheckpoints();
    const owner = newOwner();
    await keep(owner, 10, true);
    await keep(owner, 20, true);
    await keep(owner, 30, false);
    await keep(owner, 40, false);
    const lengths = [TOKENS, TOKENS.slice(0, 40), TOKENS.slice(0, 20)].map((prompt) =>
      lengthOf(checkpoints.get(owner, prompt)),
    );
    expect(lengths).toEqual([40, 20, undefined]);
  });

  it('drops checkpoints whose tokens are no longer a prefix of the newest checkpoint', async () => {
    const { checkpoints, keep } = await openCheckpoints();
    const owner = newOwner();
    await keep(owner, 10, true);
    await keep(owner, 20, false);
    await keep(owner, 30, false, OTHER); // the conversation was shortened during the turn
    await keep(owner, 40, false, OTHER);
    expect([TOKENS, OTHER, OTHER.slice(0, 35)].map((prompt) => lengthOf(checkpoints.get(owner, prompt)))).toEqual([
      undefined,
      40,
      30,
    ]);
  });
});

describe('the store of all checkpoints', () => {
  it('drops the least recently used checkpoint, and counts a checkpoint that forks share once', async () => {
    const { checkpoints, keep, states } = await openCheckpoints(2.5);
    const [source, fork, other] = [newOwner(), newOwner(), newOwner()];
    await keep(source, 10, true);
    await keep(source, 20, true);
    checkpoints.share(source, fork);
    checkpoints.drop(source);
    expect(lengthOf(checkpoints.get(fork, TOKENS))).toBe(20);
    expect(states.status().count).toBe(2);
    await keep(other, 10, true, OTHER);
    expect(lengthOf(checkpoints.get(fork, TOKENS))).toBe(20);
    expect(checkpoints.get(fork, TOKENS.slice(0, 20))).toBeUndefined();
    expect(lengthOf(checkpoints.get(other))).toBe(10);
  });

  it('keeps the checkpoints of a fork in progress, although its source is idle', async () => {
    const { checkpoints, keep } = await openCheckpoints(1.5);
    const [source, fork, other] = [newOwner(), { inProgress: true }, newOwner()];
    await keep(source, 10, true);
    checkpoints.share(source, fork);
    await keep(other, 20, true, OTHER);
    expect(checkpoints.get(other)).toBeUndefined();
    fork.inProgress = false;
    await keep(other, 20, true, OTHER);
    expect(lengthOf(checkpoints.get(other))).toBe(20);
    expect(checkpoints.get(fork)).toBeUndefined();
  });

  it('captures no state that is larger than its budget, once it knows the size', async () => {
    const { checkpoints, keep, captured } = await openCheckpoints(0.5);
    const owner = newOwner();
    expect(checkpoints.mayFit(10)).toBe(true);
    await keep(owner, 10, true);
    expect(checkpoints.get(owner)).toBeUndefined();
    expect(checkpoints.mayFit(10)).toBe(false);
    const { length } = captured;
    await keep(owner, 10, true);
    expect(captured).toHaveLength(length);
  });

  it('is empty after all owners dropped their checkpoints, or after it was cleared', async () => {
    const { checkpoints, keep, states, captured } = await openCheckpoints();
    const owners = [newOwner(), newOwner()] as const;
    await keep(owners[0], 10, true);
    await keep(owners[1], 20, true);
    checkpoints.share(owners[0], owners[1]);
    checkpoints.drop(owners[0]);
    expect(lengthOf(checkpoints.get(owners[1]))).toBe(10);
    states.clear('conversation');
    expect(states.status()).toMatchObject({ bytes: 0, count: 0, transferBytes: 0 });
    for (const state of captured) {
      expect(() => state.byteLength).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    }
    expect(owners.map((owner) => checkpoints.get(owner))).toEqual([undefined, undefined]);
  });
});
