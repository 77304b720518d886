// Sequences share batches and do not affect each other.
import { HeadstartError } from 'llama-headstart';
import type { DecodeRequest } from 'llama-headstart/internal';
import type { Sampler } from 'llama-headstart/native';
import { describe, expect, it } from 'vitest';
import { watchBatches } from '../helpers/event-loop.js';
import { someTokens } from '../helpers/lab.js';
import { generate, openEngine } from '../helpers/open-engine.js';

describe('the scheduler', () => {
  it('decodes eight sequences together, and each generates the same tokens as alone', async () => {
    const prompts = Array.from({ length: 8 }, (_, index) => someTokens(20 + 60 * index, index + 1));
    const expected: number[][] = [];
    for (const prompt of prompts) {
      const { engine } = await openEngine();
      expected.push(await generate(engine, 0, prompt, 20));
    }
    const { engine } = await openEngine();
    const batches = watchBatches();
    const actual = await Promise.all(prompts.map((prompt, sequence) => generate(engine, sequence, prompt, 20)));
    expect(actual).toEqual(expected);
    expect(batches.maxSequences).toBe(8);
    const tokens = prompts.reduce((total, { length }) => total + length, 0);
    expect(engine.context.counters().decodes).toBeLessThan(20 + tokens / 32 + 20);
  });

  it('generates tokens of one sequence during the prefill of a long prompt in another sequence', async () => {
    const { engine } = await openEngine();
    let isPrefilled = false;
    const prefill = engine.prefill(0, someTokens(1500, 1), 0).then(() => {
      isPrefilled = true;
    });
    let steps = 0;
    let { token } = await engine.decode({ sequence: 1, tokens: someTokens(3, 2), from: 0 });
    while (!isPrefilled && steps < 400) {
      ({ token } = await engine.decode({ sequence: 1, tokens: Int32Array.of(token), from: 3 + steps++ }));
    }
    expect(steps).toBeGreaterThanOrEqual(10); // one for each chunk of the prompt
    await prefill;
  });

  it('decodes 256 sequences in one batch', async () => {
    const { engine } = await openEngine({ maxSequences: 256, batchSize: 512 });
    const sequences = Array.from({ length: 256 }, (_, sequence) => sequence);
    await Promise.all(sequences.map((sequence) => engine.prefill(sequence, someTokens(3, sequence), 0)));
    const batches = watchBatches();
    await Promise.all(
      sequences.map((sequence) => engine.decode({ sequence, tokens: Int32Array.of(20 + sequence), from: 3 })),
    );
    expect(batches.maxSequences).toBe(256);
  });

  it('prefills a short prompt within a few decodes although five long prompts came first', async () => {
    const { engine } = await openEngine({ kvCells: 4096 });
    const long = [0, 1, 2, 3, 4].map((sequence) => engine.prefill(sequence, someTokens(500, sequence + 1), 0));
    let stream = await engine.decode({ sequence: 6, tokens: someTokens(3, 7), from: 0 });
    const { decodes } = engine.context.counters();
    let decodesNeeded: number | undefined;
    const short = engine.prefill(5, someTokens(30, 6), 0).then(() => {
      decodesNeeded = engine.context.counters().decodes - decodes;
    });
    for (let from = 3; decodesNeeded === undefined; from++) {
      stream = await engine.decode({ sequence: 6, tokens: Int32Array.of(stream.token), from });
    }
    // Besides the token of the generating sequence, each batch has 32 tokens of each of two prompts.
    expect(decodesNeeded).toBeLessThanOrEqual(5);
    await Promise.all([short, ...long]);
  });

  it('rejects an invalid request alone, without an effect on the sequences in the same batch', async () => {
    const { engine } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    const [good, wrongPosition, wrongToken, wrongSequence] = await Promise.allSettled([
      generate(engine, 1, prompt, 10),
      engine.decode({ sequence: 2, tokens: Int32Array.of(5), from: 7 }),
      engine.decode({ sequence: 3, tokens: Int32Array.of(-1), from: 0 }),
      engine.decode({ sequence: 99, tokens: Int32Array.of(1), from: 0 }),
    ]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(wrongPosition).toMatchObject({ reason: { code: 'POSITION_INVALID' } });
    expect(wrongToken).toMatchObject({ reason: { code: 'TOKEN_OUT_OF_RANGE' } });
    expect(wrongSequence).toMatchObject({ reason: { code: 'SEQUENCE_OUT_OF_RANGE' } });
  });

  it.each<[string, Partial<DecodeRequest>, string]>([
    ['undefined tokens', { tokens: undefined as never }, 'INVALID_ARGUMENT'],
    ['no tokens', { tokens: new Int32Array() }, 'INVALID_ARGUMENT'],
    ['tokens in a plain array', { tokens: [5] as never }, 'INVALID_ARGUMENT'],
    ['tokens in a Float32Array', { tokens: new Float32Array([5]) as never }, 'INVALID_ARGUMENT'],
    ['a negative position', { from: -1 }, 'POSITION_INVALID'],
    ['a fractional position', { from: 0.5 }, 'POSITION_INVALID'],
    ['a position that overflows to 0 in 32 bits', { from: 2 ** 32 }, 'POSITION_INVALID'],
    ['no position', { from: undefined as never }, 'POSITION_INVALID'],
    ['a fractional sequence id', { sequence: 1.5 }, 'SEQUENCE_OUT_OF_RANGE'],
    ['a sequence id that overflows to another id in 32 bits', { sequence: 2 ** 32 + 1 }, 'SEQUENCE_OUT_OF_RANGE'],
    ['no sequence', { sequence: undefined as never }, 'SEQUENCE_OUT_OF_RANGE'],
    ['an object instead of a signal', { signal: {} as never }, 'INVALID_ARGUMENT'],
    ['an object instead of a sampler', { sampler: {} as never }, 'INVALID_ARGUMENT'],
    ['more log-probabilities than tokens', { logProbabilities: 1e6 }, 'INVALID_ARGUMENT'],
    ['a negative number of log-probabilities', { logProbabilities: -1 }, 'INVALID_ARGUMENT'],
    [
      'a throwing `onDecoded`',
      {
        onDecoded: () => {
          throw new HeadstartError('INTERNAL', 'thrown by the caller');
        },
      },
      'INTERNAL',
    ],
  ])('rejects a request with %s, without an effect on other sequences', async (_, wrong, code) => {
    const { engine } = await openEngine();
    const prompts = [someTokens(40, 1), someTokens(40, 4)] as const;
    const expected = [await generate(engine, 0, prompts[0], 10), await generate(engine, 3, prompts[1], 10)];
    const beside = [generate(engine, 1, prompts[0], 10), generate(engine, 4, prompts[1], 10)];
    for (let repeat = 0; repeat < 3; repeat++) {
      await expect(
        engine.decode({ sequence: 2, tokens: Int32Array.of(5), from: repeat, ...wrong }),
      ).rejects.toMatchObject({
        code,
      });
    }
    expect(await Promise.all(beside)).toEqual(expected);
    expect(engine.status()).toMatchObject({ queueLength: 0 });
  });

  it('rejects a request whose sampler fails, without an effect on other sequences', async () => {
    const { model, engine } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    // The grammar allows only "b", and the bias only "a".
    const [only] = await model.tokenize('a');
    const ids = Array.from({ length: model.info.vocabulary.size }, (_, id) => id);
    const logitBias = new Map(ids.filter((id) => id !== only).map((id) => [id, Number.NEGATIVE_INFINITY]));
    const sampler: Sampler = await model.createSampler({ grammar: 'root ::= "b"', logitBias });
    const decoded: number[] = [];
    const failing = engine.decode({
      sequence: 2,
      tokens: someTokens(4, 3),
      from: 0,
      sampler,
      onDecoded: (tokens) => decoded.push(...tokens),
    });
    const [good, failed] = await Promise.allSettled([generate(engine, 1, prompt, 10), failing]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'GRAMMAR_DEAD_END' } });
    expect(decoded).toEqual([...someTokens(4, 3)]); // the request's tokens were decoded before its sampler failed
  });

  it('aborts a prefill without an effect on other sequences, and reports which tokens it decoded', async () => {
    const { engine } = await openEngine();
    const prompt = someTokens(30, 1);
    const expected = await generate(engine, 0, prompt, 10);
    const controller = new AbortController();
    const decoded: number[] = [];
    const aborted = engine.decode({
      sequence: 2,
      tokens: someTokens(1000, 3),
      from: 0,
      signal: controller.signal,
      onDecoded: (tokens) => {
        decoded.push(...tokens);
        controller.abort(new Error('enough'));
      },
    });
    const [good, failed] = await Promise.allSettled([generate(engine, 1, prompt, 10), aborted]);
    expect(good).toEqual({ status: 'fulfilled', value: expected });
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'ABORTED' } });
    const { last } = await engine.context.positionRange(2);
    expect(last + 1).toBe(decoded.length);
  });
});
