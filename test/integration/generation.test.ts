// What ends a reply, what chooses its tokens, and what is told of them.
import { readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Reply, SamplingOptions, SendOptions, StreamPart, Usage } from 'llama-headstart';
import type { CompletionPart, FinishPart, GenerationOptions } from 'llama-headstart/internal';
import { describe, expect, it, onTestFinished } from 'vitest';
import { agentOptions, EXACT, startAgent, temporaryDirectory, withoutTimes } from '../helpers/agents.js';
import { coldReply } from '../helpers/cold.js';
import { likelyText } from '../helpers/likely-text.js';
import { microModel } from '../helpers/models.js';

const WARM = { temperature: 1.2, seed: 7 } as const;

const vendored = (name: string) =>
  readFileSync(new URL(`../../vendor/llama.cpp/models/templates/${name}.jinja`, import.meta.url), 'utf8');
const LAMP = {
  name: 'lamp',
  parameters: { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] },
};

async function reply(options: SendOptions, name: 'dense' | 'recurrent' = 'dense'): Promise<Reply> {
  const agent = await startAgent({ name });
  const session = await agent.createSession();
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

describe('sampling', () => {
  it("without any options is llama.cpp's, `temperature: 0` is the likeliest token, whatever else is set", async () => {
    const sampled = async (agent: SamplingOptions, turn: SamplingOptions = {}) => {
      const session = await (await startAgent({ sampling: agent })).createSession();
      return (await session.send('Tell me more.', { maxTokens: 48, sampling: turn })).text;
    };
    const neutral = { topK: 0, topP: 1, minP: 0 };
    const plain = await sampled({}, { seed: 7 });
    expect(plain).toBe(await sampled({ temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 }, { seed: 7 }));
    expect(plain).not.toBe(await sampled({ ...neutral, temperature: 0.8 }, { seed: 7 }));
    const greedy = await sampled({ temperature: 0 });
    expect(greedy).toBe(
      await sampled({ xtc: { probability: 1 }, mirostat: { version: 2 } }, { temperature: 0, topK: 3 }),
    );
    expect(greedy).not.toBe(plain);
  });

  it('says the same for the same seed, and something else for another', async () => {
    const first = await reply({ sampling: WARM });
    expect(withoutTimes(await reply({ sampling: WARM }))).toEqual(withoutTimes(first));
    expect((await reply({ sampling: { ...WARM, seed: 8 } })).text).not.toBe(first.text);
    expect((await reply({})).text).not.toBe(first.text);
  });

  it("is the request's over the session's over the agent's, option by option", async () => {
    const { text } = await reply({ sampling: WARM });
    const agent = await startAgent({ sampling: { temperature: 1.2 } });
    const session = await agent.createSession({ sampling: { seed: 3 } });
    expect((await session.send('Tell me more.', { maxTokens: 48, sampling: { seed: 7 } })).text).toBe(text);
    const greedy = await agent.createSession({ sampling: { temperature: 0 } });
    expect((await greedy.send('Tell me more.', { maxTokens: 48 })).text).toBe((await reply({})).text);
  });

  it('is heeded in a request, whatever option it is', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const say = async (sampling: SamplingOptions) => {
      const fork = await session.fork();
      const { text } = await fork.send('Tell me more.', { maxTokens: 48, sampling });
      await fork.close();
      return text;
    };
    const eos = agent.model.info.vocabulary.eos as number;
    const stuck = { logitBias: { 40: 30, 41: 29 } };
    /** An option, and what it changes. */
    const options: { [Name in keyof Required<SamplingOptions>]: [SamplingOptions[Name], SamplingOptions] } = {
      temperature: [1.2, { seed: 7 }],
      dynamicTemperatureRange: [1.1, WARM],
      dynamicTemperatureExponent: [8, { ...WARM, dynamicTemperatureRange: 1.1 }],
      topK: [2, WARM],
      topP: [0.2, WARM],
      minP: [0.5, WARM],
      typicalP: [0.1, WARM],
      topNSigma: [0.5, WARM],
      minKeep: [20, { ...WARM, topP: 0 }],
      repeatPenalty: [50, stuck],
      frequencyPenalty: [0.5, stuck],
      presencePenalty: [5, stuck],
      penaltyLastTokens: [0, { ...stuck, presencePenalty: 5 }],
      dry: [{ multiplier: 5, allowedLength: 1, sequenceBreakers: [] }, stuck],
      xtc: [{ probability: 1, threshold: 0.01 }, WARM],
      mirostat: [{ version: 2, tau: 1, eta: 0.5 }, WARM],
      logitBias: [{ 40: 100 }, {}],
      ignoreEos: [true, { logitBias: { [eos]: 50 } }],
      seed: [8, WARM],
    };
    for (const [name, [value, base]] of Object.entries(options)) {
      expect(await say({ ...base, [name]: value }), name).not.toBe(await say(base));
    }
  });

  it('penalises what the prompt said, too', async () => {
    const free = await reply({ maxTokens: 30 });
    const penalised = await reply({ maxTokens: 30, sampling: { presencePenalty: 100, penaltyLastTokens: 512 } });
    expect(penalised.text).not.toBe(free.text);
  });

  it.each<SendOptions>([
    { sampling: { temperature: -1 } },
    { sampling: { topK: 1.5 } },
    { sampling: { temprature: 1 } as never },
    { sampling: 5 as never },
    { sampling: { logitBias: { 99999999: 1 } } },
    { stop: '' },
    { stop: Array.from({ length: 65 }, () => 'a') },
    { stop: [5] as never },
    { stop: '\ud83d' },
    { logProbabilities: 101 },
    { timeoutMs: 0 },
    { repetitionGuard: { repeats: 1 } },
    { repetitionGuard: { repeat: 4 } as never },
    { maxTokens: 0 },
    { toolChoice: 'maybe' as never },
    { toolChoice: 'required' },
    { toolChoice: { name: 'nobody' } },
    { responseFormat: { type: 'xml' } as never },
    { nothing: 1 } as never,
  ])('refuses %j, and the session goes on', async (options) => {
    const session = await (await startAgent()).createSession();
    const code = expect.stringMatching(/^(INVALID_ARGUMENT|TOKEN_OUT_OF_RANGE)$/);
    await expect(session.send('Hello', options)).rejects.toMatchObject({ code });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('in the wrong place is told where it belongs', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const misplaced = (options: object) => session.send('Hello', options as never);
    await expect(misplaced({ temperature: 1 })).rejects.toThrow(
      '`temperature` in the options: it belongs in `sampling`',
    );
    await expect(misplaced({ systemPrompt: 'x' })).rejects.toThrow('it belongs in `createSession`');
    await expect(misplaced({ sampling: { temp: 1 } })).rejects.toThrow('did you mean `temperature`?');
    await expect(misplaced({ sampling: { dry: { multiplyer: 1 } } })).rejects.toThrow(
      'Unknown option `multiplyer` in `dry` in `sampling`: did you mean `multiplier`?',
    );
    const schema = { type: 'object', properties: {} };
    await expect(misplaced({ responseFormat: schema })).rejects.toThrow("wrap it, { type: 'json', schema: ... }");
    await expect(agent.createSession({ maxTokens: 5 } as never)).rejects.toThrow('it belongs in `send` and `stream`');
    await expect(agent.createSession({ nSeqMax: 5 } as never)).rejects.toThrow(
      'in `model` of `AgentServer.initialize`',
    );
  });

  it('is checked when a session is opened, together with what the agent sets', async () => {
    const agent = await startAgent({ sampling: { temperature: 0.8 } });
    for (const sampling of [{ mirostat: { version: 2 } }, { dynamicTemperatureRange: 0.3 }] as const) {
      const session = await agent.createSession({ sampling });
      expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
    }
    await expect(agent.createSession({ sampling: { dynamicTemperatureRange: 0.9 } })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(agent.createSession({ sampling: { topP: 2 } })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(agent.createSession({ sampling: { topp: 1 } as never })).rejects.toThrow(/did you mean `topP`/);
    const { AgentServer } = await import('llama-headstart');
    await expect(AgentServer.initialize(agentOptions({ sampling: { minP: -1 } }))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});

describe('a stop string', () => {
  it('ends the reply before it, and no piece of it is streamed', async () => {
    const { text } = await reply({});
    const [at, end] = [text.length >> 1, (text.length >> 1) + 5];
    const stop = text.slice(at, end);
    const { parts } = await partsOf({ stop: ['never there', stop] });
    const texts = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : []));
    expect(texts.join('')).toBe(text.slice(0, text.indexOf(stop)));
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason: 'stop', detail: 'stop-string' });
  });

  it('that does not come changes nothing: what was held back comes in the end', async () => {
    const { text } = await reply({});
    const almost = `${text.slice(-4)}never`;
    expect((await reply({ stop: almost })).text).toBe(text);
  });
});

describe('a reply', () => {
  it('that its form ends with a text of its own was ended by the model', async () => {
    const agent = await startAgent({ chatTemplate: vendored('poolside-Laguna-XS.2'), contextSize: 2048 });
    const session = await agent.createSession({ tools: [LAMP] });
    const sampling = { ...(await likelyText('No</assistant>')), penaltyLastTokens: 5 };
    const reply = await session.send('Hm?', { sampling, maxTokens: 20, reasoning: false, stop: 'never' });
    expect(reply).toMatchObject({ text: 'No', finishReason: 'stop' });
    expect(reply).not.toHaveProperty('detail');
  });

  it('ends where the model ends it, or at `maxTokens`, or where the context is full', async () => {
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

  it('that repeats itself is ended by the guard, where that is on', async () => {
    const stuck: SendOptions = { maxTokens: 400, sampling: { logitBias: { 40: 1e6 } } };
    expect((await reply(stuck)).usage.outputTokens).toBe(400);
    const guarded = await reply({ ...stuck, repetitionGuard: { minTokens: 32 } });
    expect(guarded).toMatchObject({ finishReason: 'length', detail: 'repetition' });
    expect(guarded.usage.outputTokens).toBe(32);
  });

  it('keeps what is there of it when its time is over, and the session goes on', async () => {
    const session = await (await startAgent({ contextSize: 8192 })).createSession();
    const late = await session.send('Hello', { timeoutMs: 150, sampling: { ignoreEos: true } });
    expect(late).toMatchObject({ finishReason: 'aborted', detail: 'timeout' });
    expect(late.usage.outputTokens).toBeGreaterThan(0);
    expect(session.messages.at(-1)).toEqual({ role: 'assistant', content: late.text });
    expect((await session.send('And?', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });

  it('that did not begin in its time, or was aborted, is an error in those words', async () => {
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
    const soon = () => {
      const controller = new AbortController();
      setImmediate(() => controller.abort(reason));
      return controller.signal;
    };
    const aborted = (what: string) => ({ code: 'ABORTED', message: `${what} was aborted`, cause: reason });
    await expect(session.send(long, { signal: soon() })).rejects.toMatchObject(aborted('The turn'));
    await expect(agent.complete(long, { signal: soon() })).rejects.toMatchObject(aborted('The completion'));
    const systemPrompt = 'You oil chains. '.repeat(1000);
    const opening = agent.createSession({ systemPrompt, signal: AbortSignal.abort(reason) });
    await expect(opening).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('that is aborted ends with a finish part that says what it cost, and then throws', async () => {
    const controller = new AbortController();
    const session = await (await startAgent()).createSession();
    const parts: StreamPart[] = [];
    const reading = (async () => {
      for await (const part of session.stream('Hello', { signal: controller.signal })) {
        parts.push(part);
        controller.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    expect(parts.map(({ type }) => type)).toEqual(['text-delta', 'finish']);
    const { usage } = parts.at(-1) as FinishPart;
    expect(parts.at(-1)).toMatchObject({ finishReason: 'aborted', usage: { steps: 1 } });
    expect(usage.inputTokens).toBeGreaterThan(usage.cachedInputTokens);
    expect(usage.outputTokens).toBeGreaterThan(0);
    expect(session.messages).toEqual([]);
  });

  it('of a sampler that can go no further ends with `error`, then throws why, and leaves the session as it was', async () => {
    const session = await (await startAgent()).createSession();
    const everything = new Map(Array.from({ length: 576 }, (_, token) => [token, Number.NEGATIVE_INFINITY]));
    const { parts, error } = await partsOf({ sampling: { logitBias: everything } });
    expect(parts).toMatchObject([{ type: 'finish', finishReason: 'error' }]);
    expect(error).toMatchObject({ code: 'NO_CANDIDATES' });
    const { usage } = parts[0] as FinishPart;
    expect(usage).toMatchObject({ outputTokens: 0, firstTokenMs: 0, tokensPerSecond: 0, steps: 1 });
    await expect(session.send('Hello', { sampling: { logitBias: everything } })).rejects.toMatchObject({
      code: 'NO_CANDIDATES',
    });
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });
});

describe('usage', () => {
  it('tells times that fit into those of the turn, without what the reader took', async () => {
    const session = await (await startAgent()).createSession();
    const begin = performance.now();
    let firstPartMs = 0;
    let readingMs = 0;
    let usage: Usage | undefined;
    for await (const part of session.stream('Hello', { maxTokens: 24 })) {
      firstPartMs ||= performance.now() - begin;
      const asked = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 5));
      readingMs += performance.now() - asked;
      usage = part.type === 'finish' ? part.usage : usage;
    }
    const { firstTokenMs, tokensPerSecond, outputTokens } = usage as Usage;
    expect(outputTokens).toBeGreaterThan(1);
    expect(firstTokenMs).toBeGreaterThan(0);
    expect(firstTokenMs).toBeLessThanOrEqual(firstPartMs);
    const followingMs = ((outputTokens - 1) * 1000) / tokensPerSecond;
    expect(followingMs + firstTokenMs + readingMs).toBeLessThanOrEqual(performance.now() - begin);
  });

  it('has a first token and no rate where there is one token only', async () => {
    const one = (await reply({ maxTokens: 1 })).usage;
    expect(one).toMatchObject({ outputTokens: 1, tokensPerSecond: 0 });
    expect(one.firstTokenMs).toBeGreaterThan(0);
    expect((await (await startAgent()).complete('Hello', { maxTokens: 1 })).usage.tokensPerSecond).toBe(0);
  });
});

describe('log-probabilities', () => {
  it('are told of each token, with the likeliest in its place', async () => {
    const { text, usage, logProbabilities = [] } = await reply({ maxTokens: 6, logProbabilities: 3 });
    expect(logProbabilities).toHaveLength(usage.outputTokens);
    expect(logProbabilities.map((each) => each.text).join('')).toBe(text);
    for (const { token, logProbability, likely } of logProbabilities) {
      expect(likely).toHaveLength(3);
      expect(likely[0]).toMatchObject({ token, logProbability }); // the likeliest was chosen
      expect(logProbability).toBeLessThan(0);
      expect(likely[1]?.logProbability).toBeLessThanOrEqual(logProbability);
    }
  });

  it('are told of sampled tokens too, and are absent where nobody asked', async () => {
    const sampled = await reply({ maxTokens: 6, logProbabilities: 0, sampling: WARM });
    expect(sampled.logProbabilities?.every(({ likely }) => likely.length === 0)).toBe(true);
    expect(await reply({ maxTokens: 2 })).not.toHaveProperty('logProbabilities');
  });
});

describe('agent.complete', () => {
  it('goes on from a text without a chat template', async () => {
    const agent = await startAgent(EXACT);
    const options: GenerationOptions = { maxTokens: 12 };
    const first = await agent.complete('The chain is', options);
    const asItIs = '{% for m in messages %}{{ m.content }}{% endfor %}';
    const cold = await coldReply(microModel('dense'), {}, [{ role: 'user', content: 'The chain is' }], 12, asItIs);
    expect(first.text).toBe(cold.text);
    expect(first.usage).toMatchObject({ inputTokens: await agent.countTokens('The chain is'), outputTokens: 12 });
    expect((await agent.complete('The chain is', options)).text).toBe(first.text);
    const [head = '', rest = ''] = [first.text.slice(0, 5), first.text.slice(5)];
    expect((await agent.complete('The chain is', { ...options, stop: first.text.slice(5, 8) })).text).toBe(
      first.text.slice(0, first.text.indexOf(rest.slice(0, 3))),
    );
    expect(head).not.toBe('');
  });

  it('takes control tokens in the prompt for text, unless told otherwise', async () => {
    const agent = await startAgent();
    const { usage } = await agent.complete('<|im_start|>', { maxTokens: 1 });
    expect(usage.inputTokens).toBeGreaterThan(1);
    expect((await agent.complete('<|im_start|>', { maxTokens: 1, parseSpecial: true })).usage.inputTokens).toBe(1);
  });

  it('gives its sequence back, however it ends', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    await expect(agent.complete('Hello', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(agent.complete('')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(agent.complete('word '.repeat(2000))).rejects.toMatchObject({ code: 'CONTEXT_FULL' });
    await expect(agent.complete(5 as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    for (let round = 0; round < 3; round++) {
      await agent.complete('Hello', { maxTokens: 2 });
    }
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
  });

  it('may wait in any number, and so may sessions that share a signal', async () => {
    const warnings: string[] = [];
    const listen = ({ name }: Error) => void warnings.push(name);
    process.on('warning', listen);
    onTestFinished(() => void process.off('warning', listen));
    const agent = await startAgent({ nSeqMax: 1 });
    const { signal } = new AbortController();
    await Promise.all([
      ...Array.from({ length: 12 }, () => agent.complete('Hello', { maxTokens: 2 })),
      ...Array.from({ length: 12 }, () => agent.complete('Hello', { maxTokens: 2, signal })),
      ...Array.from({ length: 12 }, () => agent.createSession({ signal })),
    ]);
    await new Promise(setImmediate); // warnings come behind what they are of
    expect(warnings).toEqual([]);
  });

  it('copies no state that nobody comes back to', async () => {
    const agent = await startAgent({ name: 'recurrent' });
    const { saveBlockedMs } = agent.getTemplateCacheStats();
    await agent.complete('Hello', { maxTokens: 2 });
    expect(agent.getTemplateCacheStats().saveBlockedMs).toBe(saveBlockedMs);
  });
});

describe('agent.streamComplete', () => {
  it('says piece by piece what `complete` says whole, and how it ended', async () => {
    const agent = await startAgent();
    const options: GenerationOptions = { maxTokens: 12, logProbabilities: 1 };
    const { text, ...ending } = await agent.complete('The chain is', options);
    const parts: CompletionPart[] = [];
    for await (const part of agent.streamComplete('The chain is', options)) {
      parts.push(part);
    }
    const texts = parts.flatMap((part) => (part.type === 'text-delta' ? [part.text] : []));
    expect(texts.length).toBeGreaterThan(1);
    expect(texts.join('')).toBe(text);
    const { finishReason, detail, logProbabilities } = ending;
    expect(parts.at(-1)).toMatchObject({ type: 'finish', finishReason, detail, logProbabilities });
  });

  it('that fails says so in a last part, and then throws', async () => {
    const agent = await startAgent();
    const controller = new AbortController();
    const parts: CompletionPart[] = [];
    const reading = (async () => {
      for await (const part of agent.streamComplete('Hello', { signal: controller.signal })) {
        parts.push(part);
        controller.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED', message: 'The completion was aborted' });
    expect(parts.map(({ type }) => type)).toEqual(['text-delta', 'finish']);
    expect(parts.at(-1)).toMatchObject({ finishReason: 'aborted' });
  });

  it('gives its sequence back when it is left, when its agent is closed, and to others while nobody reads on', async () => {
    const agent = await startAgent({ nSeqMax: 1 });
    for await (const _ of agent.streamComplete('Hello')) {
      break;
    }
    expect(agent.health()).toMatchObject({ heldSequences: 0, kvCells: { used: 0 } });
    const texts: string[] = [];
    for await (const part of agent.streamComplete('Hello', { maxTokens: 3 })) {
      if (part.type === 'text-delta') {
        texts.push(part.text);
        expect((await agent.complete('Between', { maxTokens: 2 })).usage.outputTokens).toBe(2);
      }
    }
    expect(texts.join('')).toBe((await agent.complete('Hello', { maxTokens: 3 })).text);
    const stream = agent.streamComplete('Hello');
    await stream.next();
    await agent.close();
    const rest = (async () => {
      for await (const _ of stream);
    })();
    await expect(rest).rejects.toMatchObject({ code: 'CLOSED' });
  });
});

describe('agent.countTokens', () => {
  it('counts a text, and a conversation as its prompt has it', async () => {
    const agent = await startAgent();
    const session = await agent.createSession();
    const { usage } = await session.send('Hello', { maxTokens: 1 });
    expect(await agent.countTokens([{ role: 'user', content: 'Hello' }])).toBe(usage.inputTokens);
    expect(await agent.countTokens('')).toBe(0);
    expect(await agent.countTokens('<|im_end|>')).toBeGreaterThan(1);
  });
});

describe('a model without a chat template', () => {
  it('completes texts; a session says what it lacks, and takes one by option', async () => {
    const source = join(await temporaryDirectory(), 'bare.gguf');
    // Its key by another name, as long as the right one.
    const file = (await readFile(microModel('dense'))).toString('latin1');
    await writeFile(source, file.replace('tokenizer.chat_template', 'tokenizer.chat_templatX'), 'latin1');
    const agent = await startAgent({ source });
    await expect(agent.createSession()).rejects.toMatchObject({
      code: 'NO_CHAT_TEMPLATE',
      message: expect.stringContaining('`chatTemplate`'),
    });
    expect((await agent.complete('The chain is', { maxTokens: 3 })).usage.outputTokens).toBe(3);
    expect(agent.health()).toMatchObject({ openSessions: 0, activeSessions: 0, kvCells: { used: 0 } });
    const chatTemplate = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}";
    const session = await (await startAgent({ source, chatTemplate })).createSession();
    expect((await session.send('Hello', { maxTokens: 3 })).usage.outputTokens).toBe(3);
  });
});
