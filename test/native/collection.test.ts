// close() is the way to give memory back; who forgets it gets it back all the same, when the collector sees the object.
import { expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

const scenarios: [promise: string, scenario: string][] = [
  ['the memory of dropped states is given back', 'states'],
  ['a model lives as long as a context on it', 'a model under its context'],
  ['a dropped context finishes the work that was asked of it', 'work under way'],
  ['closed objects are collected like any other', 'closed and dropped'],
];
if (process.platform === 'linux') {
  // Where a process can count its threads.
  scenarios.push(['dropped models are freed, their threads end', 'models']);
  scenarios.push(['dropped contexts are freed, their threads end', 'contexts']);
}

it.each(scenarios)('%s', async (_, scenario) => {
  const args = [scenario, microModel('dense')];
  expect(await runChild('native/children/collection.mjs', args, { nodeArgs: ['--expose-gc'] })).toEqual(CLEAN);
});
