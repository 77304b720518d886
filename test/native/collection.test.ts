// close() is the way to give memory back; who forgets it gets it back all the same, when the collector sees the object.
import { fileURLToPath } from 'node:url';
import { Model } from 'llama-headstart/native';
import { expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';

const scenarios: [promise: string, scenario: string][] = [
  ['the memory of dropped states is given back', 'states'],
  ['a model lives as long as a context on it', 'a model with an open context'],
  ['a dropped context finishes the work that was asked of it', 'a decode in progress'],
  ['closed objects are collected like any other', 'closed and dropped'],
];
if (process.platform === 'linux') {
  // Where a process can count its threads.
  scenarios.push(['dropped models are freed, their threads end', 'models']);
  scenarios.push(['dropped contexts are freed, their threads end', 'contexts']);
}

const directory = await temporaryDirectory();
const model = await Model.load({ path: microModel('dense') });
const embedding = model.info.embeddingSize;
await model.close();

it('the memory of dropped samplers is given back', () => expectClean('samplers'));

it('the memory of dropped LoRA adapters is given back', async () => {
  await expectClean('adapters', await writeLora(directory, 'large', { rank: 4096 }, embedding));
});

it('the memory of dropped reply parsers is given back', async () => {
  await expectClean(
    'reply parsers',
    fileURLToPath(new URL('../../vendor/llama.cpp/models/templates/Qwen-Qwen3-0.6B.jinja', import.meta.url)),
  );
});

it.each(scenarios)('%s', (_, scenario) => expectClean(scenario));

async function expectClean(scenario: string, ...files: string[]): Promise<void> {
  const args = [scenario, microModel('dense'), ...files];
  expect(await runChild('native/children/collection.mjs', args, { nodeArgs: ['--expose-gc'] })).toEqual(CLEAN);
}
