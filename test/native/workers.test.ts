// Each worker thread has its own instance of the addon, and may end at any moment.
import { expect, it } from 'vitest';
import { CLEAN, runChild } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';
import { temporaryDirectory } from '../helpers/native.js';
import { rounds, variants } from '../helpers/soak.js';

const path = microModel('dense');
const directory = await temporaryDirectory();

const scenarios: [promise: string, scenario: string][] = [
  ['a worker can be terminated while it loads', 'terminate during load'],
  ['a worker can be terminated while it decodes', 'terminate during decode'],
  ['a worker can be terminated while it captures', 'terminate during capture'],
  ['a worker can be terminated while it restores', 'terminate during restore'],
  ['a worker can be terminated while it reads a file', 'terminate during file read'],
  ['a worker can be terminated while it writes files, and leaves only complete files', 'terminate during file write'],
  ['a worker can be terminated while it tokenizes', 'terminate during tokenize'],
  ['a worker can end by an uncaught error while it loads', 'an uncaught error during load'],
  ['a worker can end by an uncaught error while it decodes', 'an uncaught error during decode'],
  ['a worker can end by an uncaught error while it captures', 'an uncaught error during capture'],
  ['a worker can end by an uncaught error while it restores', 'an uncaught error during restore'],
  ['a worker can end by an uncaught error while it reads a file', 'an uncaught error during file read'],
  [
    'a worker can end by an uncaught error while it writes files, and leaves only complete files',
    'an uncaught error during file write',
  ],
  ['a worker can be terminated while its logger is called', 'terminate while logging'],
  ['four workers with a model each compute the same as the main thread', 'four workers'],
  ['each thread receives errors of its own HeadstartError class', 'errors of each thread'],
  ['a worker that closes nothing ends by itself', 'a worker that forgets to close'],
  ['the process can exit while calls of workers are in progress', 'exit with workers at work'],
  ['the process can exit while workers that close their objects are terminated', 'exit while workers end'],
  ['the main thread continues while a worker decodes and is terminated', 'main and worker at once'],
];
/** In `npm test`, an uncaught error ends every second kind of work. */
const isRepresentative = ([, scenario]: [string, string], index: number) =>
  !scenario.startsWith('an uncaught error') || index % 2 === 0;

it.each(variants(scenarios, isRepresentative))('%s', async (_, scenario) => {
  for (let round = 0; round < rounds(1, 2); round++) {
    expect(await runChild('native/children/workers.mjs', [scenario, path, directory])).toEqual(CLEAN);
  }
});
