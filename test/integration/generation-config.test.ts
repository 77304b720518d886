// Agents use the sampling options that model makers recommend in generation_config.json and in the GGUF file.
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { resolveModel, type SamplingOptions } from 'llama-headstart';
import { describe, expect, it } from 'vitest';
import { type AgentSettings, startAgent, temporaryDirectory } from '../helpers/agents.js';
import { withMetadata } from '../helpers/gguf-metadata.js';
import { model, startHub, useEmptyEnvironment } from '../helpers/model-hub.js';
import { microModel } from '../helpers/models.js';

useEmptyEnvironment();

describe('generation_config.json', () => {
  const config = Buffer.from('{"temperature":0.7,"top_k":20,"top_p":0.8,"repetition_penalty":1.1,"do_sample":true}');
  const parsed = JSON.parse(config.toString());

  it('is downloaded with the model on request, and kept in the directory of the model', async () => {
    const { download, hub } = await startHub({ 'tiny.gguf': model, 'generation_config.json': config });
    expect((await download()).generationConfig).toBeUndefined();
    expect((await download({}, { generationConfig: true })).generationConfig).toEqual(parsed);
    await hub.stop();
    const offline = await download({}, { generationConfig: true });
    expect(offline.generationConfig).toEqual(parsed);
    expect((await resolveModel(offline.path, { generationConfig: true })).generationConfig).toEqual(parsed);
  });

  it('is taken from the base model if the repository has none', async () => {
    const { download, hub } = await startHub();
    hub.baseModel = 'makers/tiny';
    hub.add('makers/tiny', { 'generation_config.json': config });
    expect((await download({}, { generationConfig: true })).generationConfig).toEqual(parsed);
  });

  it('is downloaded only together with its model if the option is "with-model"', async () => {
    const { download, hub } = await startHub({ 'tiny.gguf': model, 'generation_config.json': config });
    const configRequests = () =>
      hub.requests.filter(({ host, url }) => host === 'hub' && url.includes('generation_config')).length;
    await download();
    const { generationConfig } = await download({}, { generationConfig: 'with-model' });
    // The first call has already downloaded the model.
    expect([generationConfig, configRequests()]).toEqual([undefined, 0]);
    const fresh = await temporaryDirectory();
    const along = await download({}, { generationConfig: 'with-model', modelsDir: fresh });
    expect([along.generationConfig, configRequests()]).toEqual([parsed, 1]);
    const again = await download({}, { generationConfig: 'with-model', modelsDir: fresh });
    expect([again.generationConfig, configRequests()]).toEqual([parsed, 1]);
  });

  it('of the base model is not downloaded if the option is "with-model"', async () => {
    const { download, hub } = await startHub();
    hub.baseModel = 'makers/tiny';
    hub.add('makers/tiny', { 'generation_config.json': config });
    expect((await download({}, { generationConfig: 'with-model' })).generationConfig).toBeUndefined();
    expect(hub.requests.filter(({ url }) => url.includes('makers/tiny/'))).toEqual([]);
  });

  it('sets the default sampling of an agent, and options of a request override it', async () => {
    const folder = await temporaryDirectory();
    const source = join(folder, 'tiny.gguf');
    await copyFile(microModel('dense'), source);
    await writeFile(join(folder, 'generation_config.json'), '{"temperature":1.3,"top_k":9,"do_sample":true}');
    const reply = async (settings: AgentSettings, sampling: SamplingOptions) => {
      const session = await (await startAgent({ source, ...settings })).createSession();
      return (await session.send('Tell me more.', { maxTokens: 32, sampling })).text;
    };
    const greedy = await reply({ useHfParams: false, sampling: { temperature: 0 } }, {});
    const recommended = await reply({ sampling: {} }, { seed: 7 });
    expect(recommended).not.toBe(greedy);
    expect(recommended).toBe(await reply({ useHfParams: false }, { seed: 7, temperature: 1.3, topK: 9 }));
    expect(recommended).not.toBe(await reply({ useHfParams: false }, { seed: 7, temperature: 1.3 }));
    expect(await reply({ sampling: {} }, { temperature: 0 })).toBe(greedy);
    expect(await reply({ sampling: { temperature: 0 } }, {})).toBe(greedy);
    await writeFile(join(folder, 'generation_config.json'), '{"temperature":1.3,"top_k":9,"top_p":7}');
    const warnings: string[] = [];
    const logger = (_: string, message: string) => warnings.push(message);
    expect(await reply({ sampling: {}, logger }, { seed: 7 })).toBe(recommended);
    expect(warnings.join()).toMatch(/Ignored the recommended sampling option `topP`/);
  });

  it('is not needed if the GGUF file recommends sampling, and `temperature: 0` overrides the GGUF file', async () => {
    const source = join(await temporaryDirectory(), 'tiny.gguf');
    const file = await readFile(microModel('dense'));
    const recommended = { temp: 1.5, mirostat: 2, mirostat_tau: 1, mirostat_eta: 0.5 };
    const pairs = Object.entries(recommended).map(([name, value]) => [`general.sampling.${name}`, value] as const);
    await writeFile(source, withMetadata(file, Object.fromEntries(pairs)));
    type Layers = Partial<Record<'agent' | 'session' | 'turn', SamplingOptions>>;
    const reply = async (useHfParams: boolean, layers: Layers) => {
      const agent = await startAgent({ source, useHfParams, sampling: layers.agent ?? {} });
      const session = await agent.createSession({ sampling: layers.session ?? {} });
      return (await session.send('Tell me more.', { maxTokens: 32, sampling: { seed: 7, ...layers.turn } })).text;
    };
    const text = await reply(true, {});
    expect(text).toBe(await reply(false, { turn: { temperature: 1.5, mirostat: { version: 2, tau: 1, eta: 0.5 } } }));
    expect(text).not.toBe(await reply(false, { turn: { temperature: 1.5 } }));
    const greedy = await reply(false, { turn: { temperature: 0 } });
    for (const layer of ['agent', 'session', 'turn'] as const) {
      expect(await reply(true, { [layer]: { temperature: 0 } }), layer).toBe(greedy);
    }
  });

  it('that is missing does not make the download of the model fail', async () => {
    const { download, hub, log } = await startHub({ 'tiny.gguf': model, 'generation_config.json': config });
    hub.faults.push({}, { status: 404 });
    expect((await download({}, { generationConfig: true })).generationConfig).toBeUndefined();
    expect(log.join()).toMatch(/Could not download generation_config.json of makers\/tiny-GGUF.*404/);
  });
});
