// Checks that the output of the benchmarks has the documented form. These tests do not check any speed.
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { ONE_CORE, runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

it('bench:native --json prints the medians of this package and of the baseline program', async () => {
  const model = microModel('dense');
  const args = ['--json', '--model', model, '--rounds', '1', '--tokens', '16'];
  const { code, stdout, stderr } = await runChild('../bench/native.mjs', args, { env: ONE_CORE });
  expect(code, stderr).toBe(0);
  const rates = { ours: expect.any(Number), llama: expect.any(Number) };
  const result = JSON.parse(stdout);
  expect(result).toEqual({
    model: basename(model),
    restore: {
      oursMs: expect.any(Number),
      oursFileMs: expect.any(Number),
      setDataMs: expect.any(Number),
      readChecksumMs: expect.any(Number),
      loadFileMs: expect.any(Number),
      memcpyMs: expect.any(Number),
    },
    prefill: rates,
    decode: rates,
    decode8: rates,
  });
  const { model: _, ...measured } = result;
  for (const value of Object.values(measured).flatMap((each) => Object.values(each as object))) {
    expect(value).toBeGreaterThan(0);
  }
});

it('bench:throughput --json prints a row for each number of sequences', async () => {
  const model = microModel('dense');
  const args = ['--json', '--model', model, '--rounds', '1', '--steps', '2', '--tokens', '32'];
  const { code, stdout, stderr } = await runChild('../bench/throughput.mjs', args, { env: ONE_CORE });
  expect(code, stderr).toBe(0);
  const number = expect.any(Number);
  const rows = [1, 2, 4, 8, 16, 32].map((sequences) => ({ sequences, ours: number, llama: number, ratio: number }));
  const result = JSON.parse(stdout);
  expect(result).toMatchObject({ model: basename(model), rows, javaScriptMsPerSequenceStep: number });
  for (const { ours, llama, ratio } of result.rows) {
    expect(ratio).toBeCloseTo(ours / llama, 6);
  }
});
it('bench:stateless --json prints an object for each model', async () => {
  const model = microModel('hybrid');
  const sizes = { rounds: 1, turns: 2, tokens: 2, system: 60, agents: 2, head: 60, threads: 1 };
  const args = [
    '--json',
    '--model',
    model,
    ...Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, `${value}`]),
  ];
  const { code, stdout, stderr } = await runChild('../bench/stateless.mjs', args);
  expect(code, stderr).toBe(0);
  const number = expect.any(Number);
  const turn = {
    inputTokens: number,
    outputTokens: 2,
    cachedTokens: number,
    prefilledTokens: number,
    firstTokenMs: number,
  };
  expect(JSON.parse(stdout)).toEqual([
    {
      model: basename(model),
      memory: 'hybrid',
      turns: [turn, turn],
      session: [turn, turn],
      restart: { inputTokens: number, cachedTokens: number, firstTokenMs: number },
      sideCalls: { turns: [turn, turn] },
      agents: { count: 2, headTokens: number, prefilledTokens: number, firstTokenMs: [number, number] },
    },
  ]);
});

it('bench:turns --json compares sessions and requests with another checkout', async () => {
  const model = microModel('hybrid');
  const other = fileURLToPath(new URL('../..', import.meta.url));
  const sizes = { rounds: 1, system: 60, tokens: 2, threads: 1 };
  const args = ['--json', '--model', model, '--other', other];
  args.push(...Object.entries(sizes).flatMap(([name, value]) => [`--${name}`, `${value}`]));
  const { code, stdout, stderr } = await runChild('../bench/turns.mjs', args);
  expect(code, stderr).toBe(0);
  const turns = Array.from({ length: 4 }, () => expect.any(Number));
  const agents = ['other', 'session', 'chat', 'control'].map((name) => ({ name, firstTextMs: turns, ratios: turns }));
  expect(JSON.parse(stdout)).toEqual({ model: basename(model), rounds: 1, agents });
});

it('bench:attention --json prints the times with and without flash attention for each number of tokens', async () => {
  const model = microModel('dense');
  const args = [
    '--json',
    '--model',
    model,
    '--contexts',
    '40,60',
    '--sequences',
    '1,2',
    '--rounds',
    '1',
    '--steps',
    '1',
  ];
  const { code, stdout, stderr } = await runChild('../bench/attention.mjs', args, { env: ONE_CORE });
  expect(code, stderr).toBe(0);
  const number = expect.any(Number);
  const times = {
    coldMs: number,
    firstTokenMs: number,
    eight: { firstTokenMs: number, endMs: number },
    decode: [1, 2].map((sequences) => ({ sequences, shared: number, own: number })),
  };
  const auto = { choice: 'off', microBatchSize: 128, cold: number, firstToken: number, eightFirstToken: number };
  const contexts = [40, 60].map((tokens) => ({ tokens, on: times, off: times, auto }));
  expect(JSON.parse(stdout)).toEqual({ threads: 1, models: [{ model: basename(model), contexts }] });
});

it('bench:busy --json prints the rates of fixed numbers of threads and of automatic ones', async () => {
  const model = microModel('dense');
  const args = ['--json', '--model', model, '--loops', '0', '--seconds', '0.2', '--settle', '0', '--phases', '1'];
  const { code, stdout, stderr } = await runChild('../bench/busy.mjs', [...args, '--period', '0.2'], { env: ONE_CORE });
  expect(code, stderr).toBe(0);
  const number = expect.any(Number);
  const rates = { fixed: { 1: number }, auto: number, best: number, ratio: number };
  const steady = { loops: 0, ...rates, threads: { threads: 1, changes: { slower: 0, faster: 0, routine: 0 } } };
  const result = JSON.parse(stdout);
  expect(result).toEqual({
    model: basename(model),
    cores: 1,
    steady: [
      { ...steady, work: 'decode' },
      { ...steady, work: 'prefill' },
    ],
    changing: [{ loops: 0, tokensPerSecond: number, best: number, ratio: number }],
    pair: { fixed: { '1+1': number }, auto: number, best: number, ratio: number },
  });
  for (const { auto, best, ratio } of result.steady) {
    expect(ratio).toBeCloseTo(auto / best, 6);
  }
});
