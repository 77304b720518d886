// A provider with the options of an agent loads the agent when it is first used.
import { createLlamaHeadstart } from '@llama-headstart/ai-sdk';
import { AgentServer } from 'llama-headstart';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { agentOptions, startAgent } from '../../helpers/agents.js';
import { ask } from '../../helpers/ai-sdk.js';

afterEach(() => vi.restoreAllMocks());

const CALL = { prompt: ask('Hello'), maxOutputTokens: 2 };

/** The options of an agent whose model does not exist until `repair` is called. */
function brokenOptions() {
  const options = agentOptions();
  const { source } = options.model;
  const model = { ...options.model, source: '/does/not/exist.gguf' as typeof source };
  return {
    options: { ...options, model },
    repair: () => {
      model.source = source;
    },
  };
}

describe('a provider with the option `model`', () => {
  it('loads nothing before its first call, and once for concurrent first calls', async () => {
    const initialize = vi.spyOn(AgentServer, 'initialize');
    await using headstart = createLlamaHeadstart(agentOptions({ id: 'micro' }));
    const models = [headstart(), headstart.languageModel(), headstart('other')];
    expect(models.map(({ modelId }) => modelId)).toEqual(['micro', 'micro', 'other']);
    expect(initialize).not.toHaveBeenCalled();
    const replies = await Promise.all(models.map((model) => model.doGenerate(CALL)));
    expect(initialize).toHaveBeenCalledTimes(1);
    expect(replies.map(({ response }) => response?.modelId)).toEqual(['micro', 'micro', 'other']);
  });

  it('tries again after a failed load', async () => {
    const { options, repair } = brokenOptions();
    await using headstart = createLlamaHeadstart(options);
    await expect(headstart().doGenerate(CALL)).rejects.toMatchObject({ code: 'MODEL_NOT_FOUND' });
    repair();
    const { usage } = await headstart().doGenerate(CALL);
    expect(usage.outputTokens.total).toBe(2);
  });

  it('continues a load that a call does not wait for any longer', async () => {
    const initialize = vi.spyOn(AgentServer, 'initialize');
    await using headstart = createLlamaHeadstart(agentOptions());
    const controller = new AbortController();
    const aborted = headstart().doGenerate({ ...CALL, abortSignal: controller.signal });
    const other = headstart().doGenerate(CALL);
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
    expect((await other).usage.outputTokens.total).toBe(2);
    expect(initialize).toHaveBeenCalledTimes(1);
  });

  it('closes the agent when it is disposed, and refuses further calls', async () => {
    const initialize = vi.spyOn(AgentServer, 'initialize');
    const headstart = createLlamaHeadstart(agentOptions());
    await headstart().doGenerate(CALL);
    const agent = (await initialize.mock.results[0]?.value) as AgentServer;
    await headstart[Symbol.asyncDispose]();
    await headstart.close();
    expect(agent.health().status).toBe('closing');
    await expect(headstart().doGenerate(CALL)).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(headstart().doStream(CALL)).rejects.toMatchObject({ code: 'CLOSED' });
  });

  it('ends a load in progress when it is closed, and keeps no agent', async () => {
    const initialize = vi.spyOn(AgentServer, 'initialize');
    const headstart = createLlamaHeadstart(agentOptions());
    const reply = Promise.resolve(headstart().doGenerate(CALL)).catch((error: unknown) => error);
    await vi.waitFor(() => expect(initialize).toHaveBeenCalled());
    await headstart.close();
    expect(await reply).toMatchObject({ code: 'CLOSED' });
    const loaded = (await initialize.mock.results[0]?.value.catch(() => undefined)) as AgentServer | undefined;
    expect(loaded?.health().status ?? 'closing').toBe('closing');
  });

  it('closes at once if it was never used', async () => {
    const initialize = vi.spyOn(AgentServer, 'initialize');
    await createLlamaHeadstart(agentOptions()).close();
    expect(initialize).not.toHaveBeenCalled();
  });
});

describe('a provider with the option `agent`', () => {
  it('leaves the agent open when it is closed', async () => {
    const agent = await startAgent();
    const headstart = createLlamaHeadstart({ agent });
    expect(headstart().modelId).toBe(agent.id);
    await headstart.close();
    await expect(headstart().doGenerate(CALL)).rejects.toMatchObject({ code: 'CLOSED' });
    expect(agent.health().status).toBe('ok');
  });
});

describe('a provider', () => {
  it.each([{}, undefined, { agent: {}, model: {} }])('is refused with the settings %j', (settings) => {
    expect(() => createLlamaHeadstart(settings as never)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  it('makes no embeddings and no images', () => {
    const headstart = createLlamaHeadstart(agentOptions());
    expect(() => headstart.embeddingModel('x')).toThrow('No such embeddingModel: x');
    expect(() => headstart.imageModel('x')).toThrow('No such imageModel: x');
  });
});
