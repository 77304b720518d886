import { Model, type SamplerOptions } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { microModel } from '../helpers/models.js';
import { batchOf, codeOf } from '../helpers/native.js';
import { Bench } from '../helpers/sampling.js';

let bench: Bench;

beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

describe('a choice', () => {
  test('without options is the most likely token, as without a sampler', async () => {
    expect(await bench.drawWith({})).toEqual([bench.greedy]);
    expect(await bench.write(await bench.sampler(), 24)).toEqual(await bench.write(null, 24));
  });

  test('at temperature 0 is the most likely token, with any other options', async () => {
    expect(await bench.drawWith({ temperature: 0, topP: 0.5, xtc: { probability: 0 }, seed: 7 }, 4)).toEqual(
      Array(4).fill(bench.greedy),
    );
    expect(await bench.drawWith({ temperature: 1e-9, seed: 7 }, 4)).toEqual(Array(4).fill(bench.greedy));
  });

  test('from one candidate is the most likely token at any temperature', async () => {
    for (const only of [{ topK: 1 }, { topP: 0 }, { minP: 1 }] as SamplerOptions[]) {
      expect(await bench.drawWith({ temperature: 50, seed: 3, ...only }, 8)).toEqual(Array(8).fill(bench.greedy));
    }
  });

  test('is the same for the same seed, and different for another seed', async () => {
    const first = await bench.drawWith({ temperature: 1, seed: 42 }, 32);
    expect(await bench.drawWith({ temperature: 1, seed: 42 }, 32)).toEqual(first);
    expect(await bench.drawWith({ temperature: 1, seed: 43 }, 32)).not.toEqual(first);
  });

  test('without a seed can be repeated with the seed that the sampler reports', async () => {
    const one = await bench.sampler({ temperature: 1 });
    const other = await bench.sampler({ temperature: 1 });
    expect(one.seed).not.toBe(other.seed);
    expect(await bench.drawWith({ temperature: 1, seed: one.seed }, 16)).toEqual(await bench.draw(one, 16));
  });

  test('for one row of a batch does not affect the other rows', async () => {
    const { context, greedy, prompt } = bench;
    const forced = (greedy + 1) % bench.logits.length;
    await context.removeSequence(0, prompt.length - 1);
    for (const sequence of [1, 2]) await context.copySequence(0, sequence);
    const last = prompt.subarray(prompt.length - 1);
    const picks = await context.decode({
      tokens: Int32Array.of(...last, ...last, ...last),
      positions: new Int32Array(3).fill(prompt.length - 1),
      sequences: Int32Array.of(0, 1, 2),
      outputs: Uint8Array.of(1, 1, 1),
      samplers: [null, await bench.sampler({ logitBias: { [forced]: 1e6 } }), await bench.sampler()],
    });
    for (const sequence of [1, 2]) await context.removeSequence(sequence);
    expect([...picks]).toEqual([greedy, forced, greedy]);
  });
});

describe('truncation', () => {
  test('by topK keeps the k most likely tokens', async () => {
    const allowed = new Set(bench.ranked().slice(0, 5));
    const drawn = new Set(await bench.drawWith({ temperature: 100, topK: 5, seed: 1 }, 120));
    expect([...drawn].filter((token) => !allowed.has(token))).toEqual([]);
    expect(drawn.size).toBe(5);
  });

  test('by topP keeps the most likely tokens until their probabilities add up to topP', async () => {
    const probabilities = bench.probabilities();
    const allowed = new Set<number>();
    let sum = 0;
    for (const token of bench.ranked()) {
      allowed.add(token);
      sum += probabilities[token] as number;
      if (sum >= 0.9) break;
    }
    const drawn = new Set(await bench.drawWith({ temperature: 100, topP: 0.9, seed: 1 }, 100));
    expect([...drawn].filter((token) => !allowed.has(token))).toEqual([]);
    expect(drawn.size).toBeGreaterThan(1);
  });

  test('by minP keeps only tokens whose probability is at least minP times the highest probability', async () => {
    const minimum = Math.max(...bench.logits) + Math.log(0.01);
    const drawn = await bench.drawWith({ temperature: 100, minP: 0.01, seed: 1 }, 100);
    expect(drawn.filter((token) => (bench.logits[token] as number) < minimum - 1e-5)).toEqual([]);
    expect(new Set(drawn).size).toBeGreaterThan(1);
  });

  test('by topNSigma keeps only tokens within n standard deviations of the highest logit', async () => {
    const mean = bench.logits.reduce((sum, logit) => sum + logit, 0) / bench.logits.length;
    const variance = bench.logits.reduce((sum, logit) => sum + (logit - mean) ** 2, 0) / bench.logits.length;
    const minimum = Math.max(...bench.logits) - Math.sqrt(variance);
    const drawn = await bench.drawWith({ temperature: 100, topNSigma: 1, seed: 1 }, 100);
    expect(drawn.filter((token) => (bench.logits[token] as number) < minimum - 1e-4)).toEqual([]);
  });

  test('by typicalP draws from fewer tokens', async () => {
    const all = await bench.drawWith({ temperature: 100, seed: 1 }, 100);
    const typical = await bench.drawWith({ temperature: 100, typicalP: 0.02, seed: 1 }, 100);
    expect(new Set(typical).size).toBeLessThan(new Set(all).size);
  });

  test('keeps at least minKeep tokens', async () => {
    const drawn = new Set(await bench.drawWith({ temperature: 100, topP: 0, minKeep: 3, seed: 1 }, 60));
    expect(drawn).toEqual(new Set(bench.ranked().slice(0, 3)));
  });

  test('by XTC removes the most likely token', async () => {
    const [first, second] = bench.ranked() as [number, number];
    const two = { logitBias: { [first]: 100, [second]: 100 }, temperature: 1, topK: 2 };
    const drawn = await bench.drawWith({ ...two, xtc: { probability: 1, threshold: 0.01 }, seed: 1 }, 20);
    expect(new Set(drawn)).toEqual(new Set([second]));
  });
});

describe('bias and penalties', () => {
  test('logitBias can force a token and forbid a token', async () => {
    const last = bench.ranked().at(-1) as number;
    const [, second] = bench.ranked() as [number, number];
    expect(await bench.drawWith({ logitBias: { [last]: 1e4 } })).toEqual([last]);
    expect(await bench.drawWith({ logitBias: new Map([[bench.greedy, Number.NEGATIVE_INFINITY]]) })).toEqual([second]);
  });

  test('repeat, frequency and presence penalties lower only the accepted tokens', async () => {
    const [, second] = bench.ranked() as [number, number];
    const penalties: SamplerOptions[] = [{ repeatPenalty: 100 }, { frequencyPenalty: 100 }, { presencePenalty: 100 }];
    for (const options of penalties) {
      const sampler = await bench.sampler({ ...options, ...raised(bench.greedy, second) });
      expect(await bench.draw(sampler, 1)).toEqual([bench.greedy]);
      await sampler.reset();
      await sampler.accept(Int32Array.of(bench.greedy));
      expect(await bench.draw(sampler, 1)).toEqual([second]);
    }
  });

  test('penalties ignore tokens older than penaltyLastTokens', async () => {
    const sampler = await bench.sampler({ presencePenalty: 100, penaltyLastTokens: 2 });
    const others = bench.ranked().slice(-2);
    await sampler.accept(Int32Array.of(bench.greedy, ...others));
    expect(await bench.draw(sampler)).toEqual([bench.greedy]);
  });

  test('penalties apply to sampled tokens too', async () => {
    const drawn = await bench.drawWith({ presencePenalty: 100, penaltyLastTokens: 64 }, 8);
    expect(drawn).toEqual(bench.ranked().slice(0, 8));
  });

  test('DRY stops a repetition', async () => {
    const { greedy } = bench;
    const other = bench.ranked().at(-1) as number;
    const dry = { multiplier: 100, allowedLength: 1, sequenceBreakers: [] };
    const history = Int32Array.of(other, greedy, other, greedy, other);
    const sampler = await bench.sampler({ dry });
    await sampler.accept(history);
    expect(await bench.draw(sampler)).not.toEqual([greedy]);
    const without = await bench.sampler({ dry: { ...dry, multiplier: 0 } });
    await without.accept(history);
    expect(await bench.draw(without)).toEqual([greedy]);
  });

  test('DRY respects its sequence breakers', async () => {
    const sampler = await bench.sampler({ dry: { multiplier: 1, sequenceBreakers: ['\n', 'ab'] }, temperature: 1 });
    expect(await bench.draw(sampler, 4)).toHaveLength(4);
  });

  test('ignoreEos forbids the token that ends generation', async () => {
    const eos = bench.model.info.vocabulary.eos as number;
    expect(await bench.drawWith({ logitBias: { [eos]: 1e4 } })).toEqual([eos]);
    expect(await bench.drawWith({ logitBias: { [eos]: 1e4 }, ignoreEos: true })).not.toEqual([eos]);
  });
});

describe('temperature', () => {
  test('makes unlikely tokens more likely', async () => {
    const spread = async (temperature: number) => new Set(await bench.drawWith({ temperature, seed: 5 }, 60)).size;
    expect(await spread(0.01)).toBeLessThan(await spread(100));
  });

  test('depends on the entropy if `dynamicTemperatureRange` is set', async () => {
    const fixed = await bench.drawWith({ temperature: 1, seed: 5 }, 40);
    const options = { temperature: 1, dynamicTemperatureRange: 0.9, dynamicTemperatureExponent: 8, seed: 5 };
    expect(await bench.drawWith(options, 40)).not.toEqual(fixed);
  });

  test.each([1, 2] as const)('mirostat %i chooses the same tokens for the same seed', async (version) => {
    const options = { temperature: 1, mirostat: { version, tau: 3, eta: 0.2 }, seed: 9 };
    const drawn = await bench.drawWith(options, 20);
    expect(await bench.drawWith(options, 20)).toEqual(drawn);
    expect(new Set(drawn).size).toBeGreaterThan(1);
  });
});

describe('a sampler', () => {
  test('starts again from its initial state after a reset', async () => {
    const sampler = await bench.sampler({ temperature: 1, presencePenalty: 1, seed: 8 });
    const first = await bench.draw(sampler, 12);
    await sampler.reset();
    expect(await bench.draw(sampler, 12)).toEqual(first);
  });

  test('serves one call at a time', async () => {
    const { context, prompt } = bench;
    const sampler = await bench.sampler({ temperature: 1 });
    const at = prompt.length - 1;
    await context.removeSequence(0, at);
    const batch = { ...batchOf(0, at, prompt.subarray(at)), samplers: [sampler] };
    const first = context.decode(batch);
    expect(await codeOf(() => context.decode({ ...batchOf(1, 0, prompt), samplers: [sampler] }))).toBe('SAMPLER_BUSY');
    expect(await codeOf(() => sampler.accept(prompt))).toBe('SAMPLER_BUSY');
    expect(await codeOf(() => sampler.reset())).toBe('SAMPLER_BUSY');
    await first;
    expect(await codeOf(() => bench.draw(sampler))).toBe('none');
  });

  test('can be used for only one row of a batch', async () => {
    const { context, prompt } = bench;
    const sampler = await bench.sampler();
    await context.removeSequence(0, prompt.length - 2);
    const batch = batchOf(0, prompt.length - 2, prompt.subarray(prompt.length - 2));
    const twice = { ...batch, outputs: Uint8Array.of(1, 1), samplers: [sampler, sampler] };
    expect(await codeOf(() => context.decode(twice))).toBe('SAMPLER_BUSY');
    expect(await codeOf(() => context.decode(batch))).toBe('none');
  });

  test('can be used again after its decode failed', async () => {
    const sampler = await bench.sampler();
    const batch = { ...batchOf(0, 900, Int32Array.of(1)), samplers: [sampler] };
    expect(await codeOf(() => bench.context.decode(batch))).toBe('POSITION_INVALID');
    expect(await bench.draw(sampler)).toEqual([bench.greedy]);
  });

  test('throws CLOSED after close(), which can be called twice', async () => {
    const sampler = await bench.sampler();
    sampler.close();
    sampler.close();
    expect(await codeOf(() => bench.draw(sampler))).toBe('CLOSED');
    expect(await codeOf(() => sampler.accept(Int32Array.of(1)))).toBe('CLOSED');
    expect(await codeOf(() => sampler.reset())).toBe('CLOSED');
  });

  test('can be closed during a decode, and the decode still finishes', async () => {
    const { context, prompt } = bench;
    const sampler = await bench.sampler();
    const at = prompt.length - 1;
    await context.removeSequence(0, at);
    const decoding = context.decode({ ...batchOf(0, at, prompt.subarray(at)), samplers: [sampler] });
    sampler.close();
    const [token] = await decoding;
    expect(token).toBeGreaterThanOrEqual(0);
  });

  test('belongs to one model, and is closed with it', async () => {
    const model = await Model.load({ path: microModel('dense') });
    const sampler = await model.createSampler();
    expect(await codeOf(() => bench.draw(sampler))).toBe('INVALID_ARGUMENT');
    const context = await model.createContext({ kvCells: 256 });
    await model.close();
    expect(await codeOf(() => sampler.accept(Int32Array.of(1)))).toBe('CLOSED');
    expect(await codeOf(() => sampler.reset())).toBe('CLOSED');
    expect(await codeOf(() => model.createSampler())).toBe('CLOSED');
    sampler.close();
    await context.close();
  });

  test('of a model without a tokenizer works without the options that need a tokenizer', async () => {
    const model = await Model.load({ path: microModel('no-tokenizer') });
    const context = await model.createContext({ kvCells: 256 });
    const sampler = await model.createSampler({ temperature: 1, topK: 40, repeatPenalty: 1.2, seed: 1 });
    expect(await context.decode({ ...batchOf(0, 0, Int32Array.of(1, 2)), samplers: [sampler] })).toHaveLength(1);
    for (const options of [{ grammar: 'root ::= "a"' }, { ignoreEos: true }, { dry: { multiplier: 1 } }]) {
      expect(await codeOf(() => model.createSampler(options))).toBe('NO_TOKENIZER');
    }
    await model.close();
  });
});

describe('log-probabilities', () => {
  test('are the log-softmax of the logits, the most likely token first', async () => {
    await bench.write(null, 1);
    const logits = await bench.context.logits(0);
    const highest = Math.max(...logits);
    const sum = Math.log(logits.reduce((total, logit) => total + Math.exp(logit - highest), 0));
    const { tokens, values } = await bench.context.logProbabilities(0, 10);
    expect([...tokens]).toEqual(bench.ranked().slice(0, 10));
    for (const [index, token] of tokens.entries()) {
      expect(values[index]).toBeCloseTo((logits[token] as number) - highest - sum, 4);
    }
  });

  test('of the whole vocabulary add up to a probability of one', async () => {
    await bench.write(null, 1);
    const { values } = await bench.context.logProbabilities(0, bench.logits.length);
    expect(values.reduce((sum, value) => sum + Math.exp(value), 0)).toBeCloseTo(1, 4);
  });

  test('are refused for rows without output and for counts out of range', async () => {
    await bench.write(null, 1);
    expect(await codeOf(() => bench.context.logProbabilities(1, 1))).toBe('ROW_HAS_NO_OUTPUT');
    for (const count of [0, -1, 1.5, bench.logits.length + 1, Number.NaN]) {
      expect(await codeOf(() => bench.context.logProbabilities(0, count))).toBe('INVALID_ARGUMENT');
    }
  });
});

/** Returns a bias that makes two tokens far more likely than all others, and `first` a little more than `second`. */
function raised(first: number, second: number): SamplerOptions {
  return { logitBias: { [first]: 51, [second]: 50 } };
}
