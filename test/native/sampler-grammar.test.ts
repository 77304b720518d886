import { HeadstartError } from 'llama-headstart';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { microModel } from '../helpers/models.js';
import { codeOf } from '../helpers/native.js';
import { Bench } from '../helpers/sampling.js';

let bench: Bench;

beforeAll(async () => {
  bench = await Bench.open(microModel('dense'));
});
afterAll(() => bench.close());

const endless = { ignoreEos: true };

describe('a grammar', () => {
  test('is followed to its end, and generation then ends', async () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const sampler = await bench.sampler({ grammar: 'root ::= "yes" | "no"', temperature: 1, seed });
      const tokens = await bench.write(sampler, 16);
      expect(bench.model.isEndOfGeneration(tokens.at(-1) as number)).toBe(true);
      expect(['yes', 'no']).toContain(await bench.textOf(tokens.slice(0, -1)));
    }
  });

  test('restricts greedy samplers and samplers with truncation', async () => {
    for (const options of [{}, { temperature: 1, topK: 1 }, { temperature: 1, topP: 0.01, minP: 0.9, typicalP: 0.1 }]) {
      const sampler = await bench.sampler({ grammar: 'root ::= [0-9]{3}', seed: 1, ...options });
      const tokens = await bench.write(sampler, 16);
      expect(await bench.textOf(tokens.slice(0, -1))).toMatch(/^[0-9]{3}$/);
    }
  });

  test.each([1, 2] as const)('restricts mirostat %i', async (version) => {
    const sampler = await bench.sampler({
      grammar: 'root ::= "yes" | "no"',
      temperature: 1,
      mirostat: { version },
      seed: 4,
    });
    expect(['yes', 'no']).toContain(await bench.textOf((await bench.write(sampler, 16)).slice(0, -1)));
  });

  test('starts again when the sampler is reset', async () => {
    const sampler = await bench.sampler({ grammar: 'root ::= "ab"' });
    const first = await bench.write(sampler, 8);
    await sampler.reset();
    expect(await bench.write(sampler, 8)).toEqual(first);
  });

  test('ignores the tokens that accept() adds to the history', async () => {
    const sampler = await bench.sampler({ grammar: 'root ::= "yes"' });
    await sampler.accept(bench.prompt);
    expect(await bench.textOf((await bench.write(sampler, 8)).slice(0, -1))).toBe('yes');
  });

  test('may contain token ids', async () => {
    const token = bench.ranked().at(-1) as number;
    const sampler = await bench.sampler({ grammar: `root ::= <[${token}]> <[${token}]>` });
    expect((await bench.write(sampler, 8)).slice(0, 2)).toEqual([token, token]);
  });

  test('waits for its trigger when it is lazy', async () => {
    const grammar = 'root ::= "ab" "!!!"';
    const grammarTriggers = [{ type: 'word', value: 'ab' }] as const;
    const options = { grammar, grammarLazy: true, grammarTriggers, logitBias: await biasOf('b') };
    const free = await bench.write(await bench.sampler(options), 6);
    expect(await bench.textOf(free)).toBe('bbbbbb');
    await forceThrough(options);
  });

  test('starts at a trigger token', async () => {
    const token = bench.greedy;
    const grammar = `root ::= <[${token}]> "no"`;
    const sampler = await bench.sampler({ grammar, grammarLazy: true, grammarTriggers: [{ type: 'token', token }] });
    const [first, ...rest] = await bench.write(sampler, 8);
    expect(first).toBe(token);
    expect(await bench.textOf(rest.slice(0, -1))).toBe('no');
  });

  test('that begins with the generation prompt continues after the prompt', async () => {
    const sampler = await bench.sampler({ grammar: 'root ::= "<a>yes"', generationPrompt: '<a>' });
    expect(await bench.textOf((await bench.write(sampler, 8)).slice(0, -1))).toBe('yes');
  });
});

/** Returns a bias that makes the model choose the token of `text`. The text must be a single token. */
async function biasOf(text: string): Promise<Record<number, number>> {
  const [token, ...more] = await bench.model.tokenize(text);
  expect(more).toEqual([]);
  return { [token as number]: 1e5 };
}

/** Makes the model write the trigger with a bias, and expects the text that the grammar then forces. */
async function forceThrough(options: object): Promise<void> {
  const [token] = await bench.model.tokenize('a');
  const sampler = await bench.sampler({
    ...options,
    logitBias: { ...(await biasOf('b')), [token as number]: 2e5 },
    presencePenalty: 100,
    frequencyPenalty: 100,
    repeatPenalty: 100,
  });
  const text = await bench.textOf((await bench.write(sampler, 12)).slice(0, -1));
  expect(text).toMatch(/ab!!!$/);
}

describe('a grammar that no token can continue', () => {
  const deadEnds: [string, object][] = [
    ['at its end, because no token may end generation', { grammar: 'root ::= "a"', ...endless }],
    ['because it needs a character that no token contains', { grammar: 'root ::= "a" "\\x00"' }],
    ['because it allows only the empty text and no token may end generation', { grammar: 'root ::= ""', ...endless }],
  ];
  const choices = [{}, { temperature: 1, seed: 1 }, { temperature: 1, topK: 3, typicalP: 0.5, topP: 0.5, minP: 0.1 }];
  const mirostats = ([1, 2] as const).map((version) => ({ temperature: 1, mirostat: { version } }));

  test.each(deadEnds)('%s, fails with GRAMMAR_DEAD_END, and the context still works', async (_, options) => {
    for (const choice of [...choices, ...mirostats]) {
      const sampler = await bench.sampler({ ...options, ...choice });
      const tokens = bench.write(sampler, 64);
      expect(await codeOf(() => tokens)).toBe('GRAMMAR_DEAD_END');
      expect(sampler.failure?.code).toBe('GRAMMAR_DEAD_END');
      expect(await codeOf(() => bench.draw(sampler))).toBe('SAMPLER_DEAD');
      expect(await codeOf(() => sampler.accept(Int32Array.of(1)))).toBe('SAMPLER_DEAD');
      expect(await bench.write(null, 1)).toEqual([bench.greedy]);
    }
  });

  test('because of a bias fails with GRAMMAR_DEAD_END', async () => {
    const [a] = await bench.model.tokenize('a');
    const forbidden = new Map([...bench.logits.keys()].map((token) => [token, Number.NEGATIVE_INFINITY]));
    forbidden.delete(a as number);
    const sampler = await bench.sampler({ grammar: 'root ::= "b"', logitBias: forbidden });
    expect(await codeOf(() => bench.draw(sampler))).toBe('GRAMMAR_DEAD_END');
  });

  test('works again after a reset of its sampler', async () => {
    const sampler = await bench.sampler({ grammar: 'root ::= "a"', ...endless });
    expect(await codeOf(() => bench.write(sampler, 8))).toBe('GRAMMAR_DEAD_END');
    await sampler.reset();
    expect(sampler.failure).toBeNull();
    expect(await bench.textOf(await bench.draw(sampler))).toBe('a');
  });

  test('does not affect the tokens of other rows', async () => {
    const { context, prompt } = bench;
    const at = prompt.length - 1;
    await context.removeSequence(0, at);
    await context.copySequence(0, 1);
    const dead = await bench.sampler({ grammar: 'root ::= ""', ...endless });
    const last = prompt.subarray(at);
    const failure = await context
      .decode({
        tokens: Int32Array.of(...last, ...last),
        positions: Int32Array.of(at, at),
        sequences: Int32Array.of(0, 1),
        outputs: Uint8Array.of(1, 1),
        samplers: [dead, await bench.sampler()],
      })
      .catch((error) => error);
    await context.removeSequence(1);
    expect(HeadstartError.isInstance(failure, 'GRAMMAR_DEAD_END')).toBe(true);
    expect([...failure.picks]).toEqual([-1, bench.greedy]);
  });

  test('once its trigger token is chosen, fails with GRAMMAR_DEAD_END', async () => {
    const token = bench.greedy;
    const sampler = await bench.sampler({
      grammar: 'root ::= "never"',
      grammarLazy: true,
      grammarTriggers: [{ type: 'token', token }],
    });
    expect(await codeOf(() => bench.draw(sampler))).toBe('GRAMMAR_DEAD_END');
    expect(await codeOf(() => bench.draw(sampler))).toBe('SAMPLER_DEAD');
  });
});
