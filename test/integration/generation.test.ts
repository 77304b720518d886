// Tests how a reply ends, and what its usage and log-probabilities contain.
import { readFileSync } from 'node:fs';
import type { HeadstartError, Reply, SendOptions, StreamPart, Usage } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { startAgent } from '../helpers/agents.js';
import { likelyText } from '../helpers/likely-text.js';
import { withEnoughTime } from '../helpers/time-limits.js';

const WARM = { temperature: 1.2, seed: 7 } as const;

const vendored = (name: string) =>
  readFileSync(new URL(`../../vendor/llama.cpp/models/templates/${name}.jinja`, import.meta.url), 'utf8');
const LAMP = {
  name: 'lamp',
  parameters: { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] },
};

async function reply(options: SendOptions): Promise<Reply> {
  const session = await (await startAgent()).createSession();
  return session.send('Tell me more.', { maxTokens: 48, ...options });
}

async function partsOf(options: SendOptions): Promise<{ parts: StreamPart[]; error: unknown }> {
  const session = await (await startAgent()).createSession();
  const parts: StreamPart[] = [];
  try {
    for await (const part of session.stream('Tell me more.', { maxTokens: 48, ...options })) {
      parts.push(part);
    }
    return { parts, error: undefined };
  } catch (error) {
    return { parts, error };
  }
}

describe('a stop string', () => {
  it('ends the reply in front of it, and no part of the stop string is streamed', async () => {
    const { text } = await reply({});
    const [at, end] = [text.length >> 1, (text.length >> 1) + 5];
    const stop = text.slice(at, end);
    const { parts } = await partsOf({ stop: ['never there', stop] });
    const texts = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : []));
    expect(texts.join('')).toBe(text.slice(0, text.indexOf(stop)));
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop', detail: 'stop-string' });
  });

  it('whose beginning is the end of the reply does not change the reply', async () => {
    const { text } = await reply({});
    const almost = `${text.slice(-4)}never`;
    expect((await reply({ stop: almost })).text).toBe(text);
  });
});

describe('a reply', () => {
  it('that ends with the end marker of its reply format counts as ended by the model', async () => {
    const agent = await startAgent({ chatTemplate: vendored('poolside-Laguna-XS.2'), contextSize: 2048 });
    const session = await agent.createSession({ tools: [LAMP] });
    const sampling = { ...(await likelyText('No</assistant>')), penaltyLastTokens: 5 };
    const reply = await session.send('Hm?', { sampling, maxTokens: 20, reasoning: false, stop: 'never' });
    expect(reply).toMatchObject({ text: 'No', finishReason: 'stop' });
    expect(reply).not.toHaveProperty('detail');
  });

  it('ends when the model ends it, at `maxTokens`, or when the context is full', async () => {
    const session = await (await startAgent({ contextSize: 256 })).createSession();
    const whole = await session.send('Hm?', { sampling: { ...(await likelyText('Yes')), penaltyLastTokens: 2 } });
    expect(whole).toMatchObject({ text: 'Yes', finishReason: 'stop' });
    expect(whole).not.toHaveProperty('detail');
    const cut = await session.send('Hm?', { maxTokens: 3 });
    expect(cut).toMatchObject({ finishReason: 'length', detail: 'max-tokens', usage: { outputTokens: 3 } });
    const full = await session.send('Hm?', { sampling: { ignoreEos: true } });
    expect(full).toMatchObject({ finishReason: 'length', detail: 'context' });
    expect(full.usage.inputTokens + full.usage.outputTokens).toBe(256);
  });

  it('that repeats itself is ended by the repetition guard', async () => {
    const stuck: SendOptions = { maxTokens: 400, sampling: { logitBias: { 40: 1e6 } } };
    expect((await reply(stuck)).usage.outputTokens).toBe(400);
    const guarded = await reply({ ...stuck, repetitionGuard: { minTokens: 32 } });
    expect(guarded).toMatchObject({ finishReason: 'length', detail: 'repetition' });
    expect(guarded.usage.outputTokens).toBe(32);
  });

  it('that reaches `timeoutMs` keeps its text, and the session remains usable', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    await withEnoughTime(100, async (timeoutMs) => {
      const session = await agent.createSession();
      const late = await session.send('Hello', { timeoutMs, sampling: { ignoreEos: true } });
      expect(late).toMatchObject({ finishReason: 'aborted', detail: 'timeout' });
      expect(late.usage.outputTokens).toBeGreaterThan(0);
      expect(session.messages.at(-1)).toEqual({ role: 'assistant', content: late.text });
      expect((await session.send('And?', { maxTokens: 3 })).usage.outputTokens).toBe(3);
    });
  });

  it('that has no token before `timeoutMs`, or that is aborted, fails with an error that names the call', async () => {
    const agent = await startAgent({ contextSize: 8192 });
    const session = await agent.createSession();
    const long = 'The chain is oiled. '.repeat(600);
    const late = {
      code: 'ABORTED',
      message: expect.stringMatching(/`timeoutMs` \(1 ms\) passed before the first token/),
    };
    await expect(session.send(long, { timeoutMs: 1 })).rejects.toMatchObject(late);
    await expect(agent.complete(long, { timeoutMs: 1 })).rejects.toMatchObject(late);
    const reason = new Error('enough');
    const abortSoon = () => {
      const controller = new AbortController();
      setImmediate(() => controller.abort(reason));
      return controller.signal;
    };
    const aborted = (what: string) => ({ code: 'ABORTED', message: `${what} was aborted`, cause: reason });
    await expect(session.send(long, { signal: abortSoon() })).rejects.toMatchObject(aborted('The turn'));
    await expect(agent.complete(long, { signal: abortSoon() })).rejects.toMatchObject(aborted('The completion'));
    const systemPrompt = 'You oil chains. '.repeat(1000);
    const opening = agent.createSession({ systemPrompt, signal: AbortSignal.abort(reason) });
    await expect(opening).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('that is aborted fails with ABORTED and the usage, and its stream has no `finish` part', async () => {
    const controller = new AbortController();
    const session = await (await startAgent()).createSession();
    const parts: StreamPart[] = [];
    const reading = (async () => {
      for await (const part of session.stream('Hello', { signal: controller.signal })) {
        parts.push(part);
        controller.abort();
      }
    })();
    const { code, usage }: HeadstartError = await reading.then(
      () => expect.unreachable(),
      (error) => error,
    );
    expect(code).toBe('ABORTED');
    expect(parts.map(({ type }) => type)).toEqual(['text-delta']);
    if (usage === undefined) {
      throw new Error('The error has no usage');
    }
    expect(usage.steps).toBe(1);
    expect(usage.inputTokens).toBeGreaterThan(usage.cachedInputTokens);
    expect(usage.outputTokens).toBeGreaterThan(0);
    expect(session.messages).toEqual([]);
  });

  it('fails with NO_CANDIDATES and the usage if no token can be sampled, and the session remains usable', async () => {
    const session = await (await startAgent()).createSession();
    const everything = new Map(Array.from({ length: 576 }, (_, token) => [token, Number.NEGATIVE_INFINITY]));
    const { parts, error } = await partsOf({ sampling: { logitBias: everything } });
    expect(parts).toEqual([]);
    const usage = { outputTokens: 0, firstTokenMs: 0, tokensPerSecond: 0, steps: 1 };
    expect(error).toMatchObject({ code: 'NO_CANDIDATES', usage });
    await expect(session.send('Hello', { sampling: { logitBias: everything } })).rejects.toMatchObject({
      code: 'NO_CANDIDATES',
    });
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });
});

describe('usage', () => {
  it('reports times that are no longer than the turn', async () => {
    const session = await (await startAgent()).createSession();
    const begin = performance.now();
    let firstPartMs = 0;
    let usage: Usage | undefined;
    for await (const part of session.stream('Hello', { maxTokens: 24 })) {
      firstPartMs ||= performance.now() - begin;
      usage = part.type === 'finish' ? part.usage : usage;
    }
    const { firstTokenMs, tokensPerSecond, outputTokens } = usage as Usage;
    expect(outputTokens).toBeGreaterThan(1);
    expect(firstTokenMs).toBeGreaterThan(0);
    expect(firstTokenMs).toBeLessThanOrEqual(firstPartMs);
    const followingMs = ((outputTokens - 1) * 1000) / tokensPerSecond;
    expect(followingMs + firstTokenMs).toBeLessThanOrEqual(performance.now() - begin);
  });

  it('has a time to the first token, and 0 tokens per second, if the reply has only one token', async () => {
    const one = (await reply({ maxTokens: 1 })).usage;
    expect(one).toMatchObject({ outputTokens: 1, tokensPerSecond: 0 });
    expect(one.firstTokenMs).toBeGreaterThan(0);
    expect((await (await startAgent()).complete('Hello', { maxTokens: 1 })).usage.tokensPerSecond).toBe(0);
  });
});

describe('log-probabilities', () => {
  it('are reported for each token, together with the most likely tokens at its position', async () => {
    const { text, usage, logProbabilities = [] } = await reply({ maxTokens: 6, logProbabilities: 3 });
    expect(logProbabilities).toHaveLength(usage.outputTokens);
    expect(logProbabilities.map((each) => each.text).join('')).toBe(text);
    for (const { token, logProbability, likely } of logProbabilities) {
      expect(likely).toHaveLength(3);
      expect(likely[0]).toMatchObject({ token, logProbability }); // greedy sampling takes the most likely token
      expect(logProbability).toBeLessThan(0);
      expect(likely[1]?.logProbability).toBeLessThanOrEqual(logProbability);
    }
  });

  it('are reported for randomly sampled tokens too, and are absent unless requested', async () => {
    const sampled = await reply({ maxTokens: 6, logProbabilities: 0, sampling: WARM });
    expect(sampled.logProbabilities?.every(({ likely }) => likely.length === 0)).toBe(true);
    expect(await reply({ maxTokens: 2 })).not.toHaveProperty('logProbabilities');
  });
});
