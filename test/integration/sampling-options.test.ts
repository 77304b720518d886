// Tests the defaults, the effect, and the checks of sampling options.
import type { Reply, SamplingOptions, SendOptions } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { agentOptions, startAgent, withoutTimes } from '../helpers/agents.js';

const WARM = { temperature: 1.2, seed: 7 } as const;

async function reply(options: SendOptions): Promise<Reply> {
  const session = await (await startAgent()).createSession();
  return session.send('Tell me more.', { maxTokens: 48, ...options });
}

describe('sampling', () => {
  it("uses llama.cpp's defaults without options, and is greedy at `temperature: 0` whatever else is set", async () => {
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

  it('gives the same reply for the same seed, and another one for another seed', async () => {
    const first = await reply({ sampling: WARM });
    expect(withoutTimes(await reply({ sampling: WARM }))).toEqual(withoutTimes(first));
    expect((await reply({ sampling: { ...WARM, seed: 8 } })).text).not.toBe(first.text);
    expect((await reply({})).text).not.toBe(first.text);
  });

  it('takes each option from the request, otherwise from the session, otherwise from the agent', async () => {
    const { text } = await reply({ sampling: WARM });
    const agent = await startAgent({ sampling: { temperature: 1.2 } });
    const session = await agent.createSession({ sampling: { seed: 3 } });
    expect((await session.send('Tell me more.', { maxTokens: 48, sampling: { seed: 7 } })).text).toBe(text);
    const greedy = await agent.createSession({ sampling: { temperature: 0 } });
    expect((await greedy.send('Tell me more.', { maxTokens: 48 })).text).toBe((await reply({})).text);
  });

  it('applies each sampling option of a request', async () => {
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
    /** For each option: a value that changes the reply, and the other options that this change needs. */
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

  it('applies penalties to the tokens of the prompt too', async () => {
    const free = await reply({ maxTokens: 30 });
    const penalized = await reply({ maxTokens: 30, sampling: { presencePenalty: 100, penaltyLastTokens: 512 } });
    expect(penalized.text).not.toBe(free.text);
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
  ])('refuses %j, and the session remains usable', async (options) => {
    const session = await (await startAgent()).createSession();
    const code = expect.stringMatching(/^(INVALID_ARGUMENT|TOKEN_OUT_OF_RANGE)$/);
    await expect(session.send('Hello', options)).rejects.toMatchObject({ code });
    expect(session.messages).toEqual([]);
    expect((await session.send('Hello', { maxTokens: 2 })).usage.outputTokens).toBe(2);
  });

  it('names the right place of a misplaced option in the error', async () => {
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
    await expect(misplaced({ responseFormat: schema })).rejects.toThrow("Pass { type: 'json', schema }");
    await expect(agent.createSession({ maxTokens: 5 } as never)).rejects.toThrow('it belongs in `send` and `stream`');
    await expect(agent.createSession({ nSeqMax: 5 } as never)).rejects.toThrow(
      'in `model` of `AgentServer.initialize`',
    );
  });

  it('is merged with the sampling of the agent, and then checked, when a session is opened', async () => {
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
