// The states of evicted sequences, checkpoints and forks are kept in the store as long as a sequence can use them.
import { type Engine, type Sequence, StateStore, withCheckpoint } from 'llama-headstart/internal';
import { describe, expect, it } from 'vitest';
import { someTokens } from '../helpers/lab.js';
import { leaseBusy, openEngine } from '../helpers/open-engine.js';

const TOKENS = someTokens(300, 1);
const OTHER = someTokens(300, 2);

/** Fills a new sequence with tokens, marks the sequence as idle, and returns it. */
async function idleWith(engine: Engine, tokens: Int32Array, templateLength = 0): Promise<Sequence> {
  const sequence = engine.createSequence({ templateLength });
  await engine.sessions.lease(sequence);
  await engine.prefill(sequence, tokens);
  engine.sessions.setIdle(sequence);
  return sequence;
}

describe('an evicted sequence', () => {
  it('keeps its tokens and its state, which another sequence can restore', async () => {
    const states = new StateStore(2 ** 28);
    const { engine } = await openEngine({ maxSequences: 1, states });
    const evicted = await idleWith(engine, TOKENS);
    const next = await leaseBusy(engine);
    await evicted.swapped?.ready;
    expect([evicted.isLeased, evicted.length]).toEqual([false, 0]);
    expect(evicted.swapped?.tokens).toEqual(TOKENS);
    expect(states.status()).toMatchObject({ count: 1, transferBytes: 0, byKind: { conversation: { count: 1 } } });
    await next.restore(evicted.swapped?.stored?.state as never);
    expect(next.tokens).toEqual(TOKENS);
    engine.states.dropSwapped(evicted);
    expect(states.status()).toMatchObject({ count: 0, bytes: 0 });
  });

  it.each([
    ['it held only the template', { templateLength: TOKENS.length, maxBytes: 2 ** 28 }],
    ['its state is larger than the budget', { templateLength: 0, maxBytes: 1000 }],
  ])('keeps no state if %s', async (_, { templateLength, maxBytes }) => {
    const states = new StateStore(maxBytes);
    const { engine } = await openEngine({ maxSequences: 1, states });
    const evicted = await idleWith(engine, TOKENS, templateLength);
    await leaseBusy(engine);
    await evicted.swapped?.ready;
    expect(evicted.swapped?.stored).toBeUndefined();
    expect(states.status()).toMatchObject({ count: 0, bytes: 0, transferBytes: 0 });
  });

  it('leaves nothing in the store if its state is dropped during the capture', async () => {
    const states = new StateStore(2 ** 28);
    const { engine } = await openEngine({ maxSequences: 1, states });
    const evicted = await idleWith(engine, TOKENS);
    await leaseBusy(engine);
    const { swapped } = evicted;
    engine.states.dropSwapped(evicted);
    await swapped?.ready;
    expect(states.status()).toMatchObject({ count: 0, transferBytes: 0 });
  });

  it('can give its tokens to another sequence, and nothing is copied', async () => {
    const { engine } = await openEngine({ maxSequences: 1 });
    const evicted = await idleWith(engine, TOKENS);
    const next = engine.createSequence();
    engine.sessions.takeOver(evicted, next);
    expect([evicted.isLeased, evicted.length, next.id]).toEqual([false, 0, 0]);
    expect(next.tokens).toEqual(TOKENS);
    expect(engine.usedCells).toBe(TOKENS.length);
    const { token } = await engine.decode({ sequence: next, tokens: OTHER });
    const { engine: fresh, lease } = await openEngine({ maxSequences: 1 });
    const whole = await lease();
    await fresh.prefill(whole, TOKENS);
    expect((await fresh.decode({ sequence: whole, tokens: OTHER })).token).toBe(token);
  });
});

describe('a copy of a sequence', () => {
  it('is not made while a large state waits for KV cells, because the sequence may hold these cells', async () => {
    const states = new StateStore(1000);
    const { engine } = await openEngine({ maxSequences: 1, states });
    const sequence = await leaseBusy(engine);
    await engine.prefill(sequence, TOKENS);
    const restore = states.transfers.begin({ kind: 'template' }, 2000);
    const copying = engine.states.copyOf(sequence);
    restore?.setWaitsForCells(true);
    expect(await copying).toBeUndefined();
    restore?.end();
    const copy = await engine.states.copyOf(sequence);
    expect(copy?.tokens).toEqual(TOKENS);
    copy?.end();
    expect(states.status()).toMatchObject({ count: 0, transferBytes: 0 });
  });
});

describe('the checkpoints of a conversation', () => {
  /** Opens a store for states of a recurrent model. All these states have about the same size. */
  const openStates = async (maxBytes = 2 ** 28) => {
    const states = new StateStore(maxBytes);
    const { engine } = await openEngine({ name: 'recurrent', states });
    const source = await leaseBusy(engine);
    const capture = async (length: number, of = TOKENS) => {
      await source.clear();
      await engine.prefill(source, of.slice(0, length));
      const stored = await engine.states.capture(source);
      if (stored === undefined) {
        throw new Error('Expected a state that fits');
      }
      return stored;
    };
    const add = async (sequence: Sequence, length: number, beginsTurn: boolean, of = TOKENS) => {
      const stored = await capture(length, of);
      const kind = beginsTurn ? 'turn' : 'step';
      engine.states.setCheckpoints(sequence, withCheckpoint(sequence.checkpoints, stored, kind));
      engine.states.owners.release(stored, source);
    };
    return { engine, states, add, create: () => engine.createSequence() };
  };
  const lengthsOf = ({ checkpoints: { turn, step } }: Sequence) =>
    [turn?.tokens.length, step?.tokens.length].sort((a = 0, b = 0) => b - a);

  it('are those of its two newest turns', async () => {
    const { add, create } = await openStates();
    const sequence = create();
    for (const length of [10, 20, 30]) {
      await add(sequence, length, true);
    }
    expect(lengthsOf(sequence)).toEqual([30, 20]);
  });

  it('are, in a turn of several steps, those of its newest step and of the beginning of the turn', async () => {
    const { add, create } = await openStates();
    const sequence = create();
    await add(sequence, 10, true);
    await add(sequence, 20, true);
    await add(sequence, 30, false);
    await add(sequence, 40, false);
    expect(lengthsOf(sequence)).toEqual([40, 20]);
  });

  it('are dropped if their tokens are no longer a prefix of the newest checkpoint', async () => {
    const { add, create } = await openStates();
    const sequence = create();
    await add(sequence, 10, true);
    await add(sequence, 20, false);
    await add(sequence, 30, false, OTHER); // the conversation was shortened during the turn
    await add(sequence, 40, false, OTHER);
    expect(lengthsOf(sequence)).toEqual([40, 30]);
  });

  it('stay in the store until the last sequence that shares them drops them', async () => {
    const { engine, states, add, create } = await openStates();
    const [source, fork] = [create(), create()];
    await add(source, 10, true);
    await add(source, 20, true);
    engine.states.setCheckpoints(fork, { ...source.checkpoints });
    const before = states.status().bytes;
    engine.states.setCheckpoints(source, {});
    expect(states.status()).toMatchObject({ count: 2, bytes: before });
    engine.states.setCheckpoints(fork, {});
    expect(states.status()).toMatchObject({ count: 0, bytes: 0 });
  });
});
