// close() frees memory. If a program never calls close(), the garbage collector frees the memory.
import { fileURLToPath } from 'node:url';
import { Model } from 'llama-headstart/native';
import { expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { writeLora } from '../helpers/loras.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';

const scenarios: [promise: string, scenario: string][] = [
  ['the memory of dropped states is freed', 'states'],
  ['a model lives as long as one of its contexts', 'a model with an open context'],
  ['a dropped context finishes its queued calls', 'a decode in progress'],
  ['closed objects are garbage-collected like other objects', 'closed and dropped'],
];
if (process.platform === 'linux') {
  // The child process counts its threads in /proc, which only Linux has.
  scenarios.push(['dropped models are freed, and their threads end', 'models']);
  scenarios.push(['dropped contexts are freed, and their threads end', 'contexts']);
}

const directory = await temporaryDirectory();
const model = await Model.load({ path: microModel('dense') });
const embedding = model.info.embeddingSize;
await model.close();

it('the memory of dropped samplers is freed', () => expectClean('samplers'));

it('the memory of dropped LoRA adapters is freed', async () => {
  await expectClean('adapters', await writeLora(directory, 'large', { rank: 4096 }, embedding));
});

it('the memory of dropped reply parsers is freed', async () => {
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
