import type { SamplerOptions } from 'llama-headstart/native';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BAD_GRAMMARS, BAD_OPTIONS } from '../helpers/bad-samplers.js';
import { runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';
import { batchOf, codeOf, seededRandom } from '../helpers/native.js';
import { Bench } from '../helpers/sampling.js';
import { rounds } from '../helpers/soak.js';

let bench: Bench;

beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

describe('the addon refuses, with an error code,', () => {
  test.each(Object.entries(BAD_GRAMMARS))('a grammar %s', async (_, grammar) => {
    expect(await codeOf(() => bench.model.createSampler({ grammar }))).toBe('GRAMMAR_INVALID');
  });

  test.each(BAD_OPTIONS)('%s', async (_, options, code) => {
    expect(await codeOf(() => bench.model.createSampler(options as SamplerOptions))).toBe(code);
  });

  test('a bias that forbids every token', async () => {
    const all = new Map([...bench.logits.keys()].map((token) => [token, Number.NEGATIVE_INFINITY]));
    expect(await codeOf(() => bench.model.createSampler({ logitBias: all }))).toBe('NO_CANDIDATES');
  });

  test('samplers for rows without output, and objects that are not samplers', async () => {
    const { context, prompt } = bench;
    const sampler = await bench.sampler();
    const at = prompt.length - 1;
    await context.removeSequence(0, at);
    const batch = batchOf(0, at, prompt.subarray(at));
    for (const samplers of [
      [sampler, sampler],
      [null, null],
      [],
      [{}],
      [5],
      'x',
      {},
      null,
      [Object.create(Object.getPrototypeOf(sampler))],
    ]) {
      const bad = { ...batch, samplers } as never;
      expect(await codeOf(() => context.decode(bad))).toBe('INVALID_ARGUMENT');
    }
    const without = { ...batch, outputs: Uint8Array.of(0), samplers: [sampler] };
    expect(await codeOf(() => context.decode(without))).toBe('INVALID_ARGUMENT');
    expect(await bench.draw(sampler)).toEqual([bench.greedy]);
  });

  test('tokens out of range', async () => {
    const sampler = await bench.sampler();
    for (const tokens of [Int32Array.of(-1), Int32Array.of(bench.logits.length)]) {
      expect(await codeOf(() => sampler.accept(tokens))).toBe('TOKEN_OUT_OF_RANGE');
    }
    expect(await codeOf(() => sampler.accept([1] as never))).toBe('INVALID_ARGUMENT');
  });
});

describe('a sampler is created for', () => {
  test('a grammar of many ordinary parts', async () => {
    const values = Array.from({ length: 2000 }, (_, index) => `"value ${index}"`).join(' | ');
    const sampler = await bench.sampler({ grammar: `root ::= (${values}) [a-z]{0,200} # a comment ( "\n`, seed: 1 });
    expect(await bench.textOf(await bench.write(sampler, 6))).toMatch(/^val/);
  });

  test('a grammar that repeats a part that may be empty', async () => {
    const sampler = await bench.sampler({ grammar: 'root ::= ("a"? " "?)+ "b"' });
    expect(await bench.textOf((await bench.write(sampler, 30)).slice(0, -1))).toMatch(/^[a ]*b?$/);
  });

  test('each option at the ends of its range', async () => {
    const extremes: SamplerOptions[] = [
      { temperature: 100, topP: 0, minP: 1, typicalP: 0, topNSigma: 100, minKeep: 1 << 20 },
      {
        temperature: 0.001,
        repeatPenalty: 0.01,
        frequencyPenalty: -100,
        presencePenalty: -100,
        penaltyLastTokens: 1 << 20,
      },
      { temperature: 100, dynamicTemperatureRange: 99.9, dynamicTemperatureExponent: 0.01, repeatPenalty: 100 },
      { temperature: 1, dry: { multiplier: 1e6, base: 1e6, allowedLength: 1, penaltyLastTokens: 1 << 20 } },
      { temperature: 1, xtc: { probability: 1, threshold: 0 } },
      { temperature: 1, mirostat: { version: 1, tau: 100, eta: 1 } },
      { temperature: 1, mirostat: { version: 2, tau: 0, eta: 0 } },
      { topK: 2 ** 31 - 1, seed: 2 ** 32 - 2, logitBias: { 0: 1e6, 1: -1e6 } },
    ];
    for (const options of extremes) {
      const sampler = await bench.sampler({ seed: 1, ...options });
      await sampler.accept(bench.prompt);
      await sampler.accept(bench.prompt);
      expect((await bench.draw(sampler, 20)).every((token) => token >= 0)).toBe(true);
    }
  });
});

test('random sets of right and wrong options give tokens or error codes', async () => {
  const random = seededRandom(2024);
  const codes = new Map<string, number>();
  for (let round = 0; round < rounds(250, 2000); round++) {
    const options = randomOptions(random);
    let made = false;
    const code = await codeOf(async () => {
      const sampler = await bench.model.createSampler(options as SamplerOptions);
      made = true;
      await sampler.accept(bench.prompt);
      await bench.write(sampler, 4);
      sampler.close();
    });
    codes.set(code, (codes.get(code) ?? 0) + 1);
    const allowed = made
      ? ['none', 'GRAMMAR_DEAD_END', 'NO_CANDIDATES']
      : ['INVALID_ARGUMENT', 'GRAMMAR_INVALID', 'TOKEN_OUT_OF_RANGE'];
    expect(allowed, JSON.stringify(options)).toContain(code);
  }
  expect(codes.get('none')).toBeGreaterThan(50);
  expect(codes.get('INVALID_ARGUMENT')).toBeGreaterThan(50);
}, 300_000);

test('bad sampler options neither end the process nor print anything', async () => {
  expect(await runChild('native/children/samplers.mjs', [microModel('dense')])).toEqual({
    code: 0,
    signal: null,
    stdout: 'all answered\n',
    stderr: '',
  });
});

function randomOptions(random: () => number): Record<string, unknown> {
  const one = <T>(values: readonly T[]) => values[Math.floor(random() * values.length)];
  const number = () =>
    one([0, 0.5, 1, 2, 40, random(), random() * 100, ...(random() < 0.05 ? [-1, Number.NaN, 1e300] : [])]);
  const share = () => one([0, 0.1, 0.5, 0.95, 1, random(), ...(random() < 0.05 ? [2, -1] : [])]);
  const generators: Record<string, () => unknown> = {
    temperature: number,
    dynamicTemperatureRange: () => one([0, 0.1, 0.5]),
    topK: () => one([0, 1, 40, 1e9, ...(random() < 0.1 ? [-3, 1.5] : [])]),
    topP: share,
    minP: share,
    typicalP: share,
    topNSigma: number,
    minKeep: () => one([0, 1, 5, 5000]),
    repeatPenalty: () => one([0.5, 1, 1.1, 2]),
    frequencyPenalty: number,
    presencePenalty: number,
    penaltyLastTokens: () => one([0, 1, 64, 4096]),
    dry: () => ({ multiplier: number(), base: one([1, 1.75, 100]), allowedLength: one([1, 2, 5]) }),
    xtc: () => ({ probability: share(), threshold: share() }),
    mirostat: () => ({ version: one([0, 1, 2, 2, ...(random() < 0.1 ? [3] : [])]), tau: number(), eta: share() }),
    logitBias: () => ({ [Math.floor(random() * 400)]: one([1, -1, 1e6, Number.NEGATIVE_INFINITY]) }),
    ignoreEos: () => random() < 0.5,
    seed: () => Math.floor(random() * 2 ** 32) % 4294967295,
    grammar: () =>
      one([
        'root ::= "yes" | "no"',
        'root ::= [a-z]+',
        'root ::= "a"',
        'root ::= [\\u4e00-\\u4e01]',
        one(Object.values(BAD_GRAMMARS)),
      ]),
    grammarLazy: () => random() < 0.2,
    grammarTriggers: () => [
      one([
        { type: 'word', value: 'a' },
        { type: 'token', token: 5 },
        { type: 'pattern', value: 'a|(b)' },
      ]),
    ],
  };
  const options: Record<string, unknown> = {};
  for (const [name, generate] of Object.entries(generators)) {
    if (random() < 0.2) options[name] = generate();
  }
  return options;
}
