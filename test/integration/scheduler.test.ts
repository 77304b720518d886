// Sequences share decodes, and do not affect each other.
import { subscribeDiagnostics } from 'llama-headstart';
import type { DecodeRequest, Sequence } from 'llama-headstart/internal';
import type { Sampler } from 'llama-headstart/native';
import { describe, expect, it, onTestFinished } from 'vitest';
import { watchBatches } from '../helpers/event-loop.js';
import { someTokens } from '../helpers/lab.js';
import { generate, leaseMany, openEngine } from '../helpers/open-engine.js';

describe('the scheduler', () => {
  it('decodes eight sequences together, and each generates the same tokens as alone', async () => {
    const prompts = Array.from({ length: 8 }, (_, index) => someTokens(20 + 30 * index, index + 1));
    const expected: number[][] = [];
    for (const prompt of prompts) {
      const { engine } = await openEngine();
      expected.push(await generate(engine, prompt, 20));
    }
    const { engine } = await openEngine();
    const batches = watchBatches();
    const actual = await Promise.all(prompts.map((prompt) => generate(engine, prompt, 20)));
    expect(actual).toEqual(expected);
    expect(batches.maxSequences).toBe(8);
    const tokens = prompts.reduce((total, { length }) => total + length, 0);
    expect(engine.context.counters().decodes).toBeLessThan(20 + tokens / 32 + 20);
  });

  it('keeps generating in one sequence during the prefill of a long prompt in another sequence', async () => {
    const { engine, lease } = await openEngine();
    const sequence = await lease();
    let isPrefilled = false;
    const prefill = engine.prefill(await lease(), someTokens(1500, 1)).then(() => {
      isPrefilled = true;
    });
    let steps = 0;
    let { token } = await engine.decode({ sequence, tokens: someTokens(3, 2) });
    while (!isPrefilled && steps < 400) {
      ({ token } = await engine.decode({ sequence, tokens: Int32Array.of(token) }));
      steps++;
    }
    expect(steps).toBeGreaterThanOrEqual(10); // one for each chunk of the prompt
    await prefill;
  });

  it('decodes 256 sequences in one batch', async () => {
    const { engine } = await openEngine({ maxSequences: 256, batchSize: 512 });
    const sequences = await leaseMany(engine, 256);
    await Promise.all(sequences.map((sequence) => engine.prefill(sequence, someTokens(3, sequence.id))));
    const batches = watchBatches();
    await Promise.all(
      sequences.map((sequence) => engine.decode({ sequence, tokens: Int32Array.of(20 + sequence.id) })),
    );
    expect(batches.maxSequences).toBe(256);
  });

  it('prefills a short prompt within a few decodes although five long prompts came first', async () => {
    const { engine } = await openEngine({ kvCells: 4096 });
    const [sequence, last, ...others] = await leaseMany(engine, 7);
    const long = others.map((other, index) => engine.prefill(other, someTokens(300, index + 1)));
    let stream = await engine.decode({ sequence: sequence as Sequence, tokens: someTokens(3, 7) });
    const { decodes } = engine.context.counters();
    let decodesNeeded: number | undefined;
    const short = engine.prefill(last as Sequence, someTokens(30, 6)).then(() => {
      decodesNeeded = engine.context.counters().decodes - decodes;
    });
    while (decodesNeeded === undefined) {
      stream = await engine.decode({ sequence: sequence as Sequence, tokens: Int32Array.of(stream.token) });
    }
    // Besides the token of the generating sequence, each batch has 32 tokens of each of two prompts.
    expect(decodesNeeded).toBeLessThanOrEqual(5);
    await Promise.all([short, ...long]);
  });

  it('rejects an invalid request alone, without an effect on the sequences in the same batch', async () => {
    const { engine, lease } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, prompt, 10);
    const released = await lease();
    engine.sessions.release(released);
    const [good, wrongToken, wrongSequence] = await Promise.allSettled([
      generate(engine, prompt, 10),
      engine.decode({ sequence: await lease(), tokens: Int32Array.of(-1) }),
      engine.decode({ sequence: released, tokens: Int32Array.of(1) }),
    ]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(wrongToken).toMatchObject({ reason: { code: 'TOKEN_OUT_OF_RANGE' } });
    expect(wrongSequence).toMatchObject({ reason: { code: 'INVALID_ARGUMENT' } });
  });

  it('rejects a request whose sequence is released before the decode', async () => {
    const { engine, lease } = await openEngine();
    const sequence = await lease();
    const decoding = engine.decode({ sequence, tokens: Int32Array.of(1) });
    decoding.catch(() => undefined);
    engine.sessions.release(sequence);
    await expect(decoding).rejects.toMatchObject({ code: 'CLOSED' });
    expect(engine.usedCells).toBe(0);
  });

  it.each<[string, Partial<DecodeRequest>, string]>([
    ['undefined tokens', { tokens: undefined as never }, 'INVALID_ARGUMENT'],
    ['no tokens', { tokens: new Int32Array() }, 'INVALID_ARGUMENT'],
    ['tokens in a plain array', { tokens: [5] as never }, 'INVALID_ARGUMENT'],
    ['tokens in a Float32Array', { tokens: new Float32Array([5]) as never }, 'INVALID_ARGUMENT'],
    ['a sequence id instead of a sequence', { sequence: 1 as never }, 'INVALID_ARGUMENT'],
    ['no sequence', { sequence: undefined as never }, 'INVALID_ARGUMENT'],
    ['an object instead of a signal', { signal: {} as never }, 'INVALID_ARGUMENT'],
    ['an object instead of a sampler', { sampler: {} as never }, 'INVALID_ARGUMENT'],
    ['more log-probabilities than the vocabulary has tokens', { logProbabilities: 1e6 }, 'INVALID_ARGUMENT'],
    ['a negative number of log-probabilities', { logProbabilities: -1 }, 'INVALID_ARGUMENT'],
  ])('rejects a request with %s, without an effect on other sequences', async (_, wrong, code) => {
    const { engine, lease } = await openEngine();
    const prompts = [someTokens(40, 1), someTokens(40, 4)] as const;
    const expected = [await generate(engine, prompts[0], 10), await generate(engine, prompts[1], 10)];
    const beside = [generate(engine, prompts[0], 10), generate(engine, prompts[1], 10)];
    const sequence = await lease();
    for (let repeat = 0; repeat < 3; repeat++) {
      await expect(engine.decode({ sequence, tokens: Int32Array.of(5), ...wrong })).rejects.toMatchObject({ code });
    }
    expect(await Promise.all(beside)).toEqual(expected);
    expect(engine.status()).toMatchObject({ queueLength: 0 });
  });

  it('rejects a request whose sampler fails, without an effect on other sequences', async () => {
    const { model, engine, lease } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, prompt, 10);
    // The grammar allows only "b", and the bias only "a".
    const [only] = await model.tokenize('a');
    const ids = Array.from({ length: model.info.vocabulary.size }, (_, id) => id);
    const logitBias = new Map(ids.filter((id) => id !== only).map((id) => [id, Number.NEGATIVE_INFINITY]));
    const sampler: Sampler = await model.createSampler({ grammar: 'root ::= "b"', logitBias });
    const sequence = await lease();
    const failing = engine.decode({ sequence, tokens: someTokens(4, 3), sampler });
    const [good, failed] = await Promise.allSettled([generate(engine, prompt, 10), failing]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'GRAMMAR_DEAD_END' } });
    expect(sequence.tokens).toEqual(someTokens(4, 3)); // the request's tokens were decoded before its sampler failed
  });

  it('aborts a prefill without an effect on other sequences, and keeps the tokens decoded until then', async () => {
    const { engine, lease } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, prompt, 10);
    const controller = new AbortController();
    const sequence = await lease();
    const aborted = engine.decode({ sequence, tokens: someTokens(1000, 3), signal: controller.signal });
    const stop = subscribeDiagnostics('decode', ({ promptTokens }) => {
      if (promptTokens > 0) {
        controller.abort(new Error('enough'));
      }
    });
    onTestFinished(stop);
    const [good, failed] = await Promise.allSettled([generate(engine, prompt, 10), aborted]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } });
    const { last } = await engine.context.positionRange(sequence.id);
    expect(sequence.length).toBe(last + 1);
    expect(sequence.length).toBeGreaterThan(0);
  });
});
