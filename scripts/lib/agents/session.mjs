// Runs one session of an agent.

import { writeFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { CODING_AGENTS } from 'llama-headstart/internal';
import { makeDirectory } from '../../../bin/lib/make-directory.mjs';
import { clockAhead } from './clock.mjs';
import { CONTEXT_SIZE } from './model.mjs';
import { endProcessesOf, runProgram } from './processes.mjs';
import { MODEL_NAME } from './server.mjs';

/**
 * @typedef {object} AgentRun
 * @property {import('./definitions.mjs').AgentDefinition} definition
 * @property {readonly string[]} program the command without arguments
 * @property {string} node the directory of Node.js
 * @property {string} work the directory that contains everything of this run
 * @property {string | undefined} clock the library that moves the clock
 * @property {number} timeoutMs the time for one session
 *
 * @typedef {object} SessionSettings
 * @property {string} home the home directory
 * @property {string} folder the working directory
 * @property {string} words the user's words
 * @property {number} [calls] the number of replies with a call; default 0
 * @property {number} [days] how far the clock is ahead; default 0
 */

/**
 * @param {AgentRun} run
 * @param {import('./server.mjs').RunningServer} server
 * @param {SessionSettings} session
 * @returns {Promise<import('./observed-model.mjs').Observation[]>} the main requests, in their order
 */
export async function runSession(run, server, { home, folder, words, calls = 0, days = 0 }) {
  const { definition, program, work, timeoutMs } = run;
  const directory = join(work, 'connection');
  const connection = { url: server.url, apiKey: undefined, model: MODEL_NAME, contextSize: CONTEXT_SIZE, directory };
  const setup = CODING_AGENTS[definition.name].setUp(connection);
  await writeFiles(directory, setup.files);
  await writeFiles(home, definition.files ?? {});
  server.model.beginSession({ words, calls });
  const env = {
    ...environmentOf(run, home),
    ...setup.environment,
    ...definition.environment,
    ...clockAhead(run.clock, days),
  };
  const ended = await runProgram([...program, ...setup.args, ...definition.args(words)], {
    cwd: folder,
    env,
    timeoutMs,
  });
  await endProcessesOf(work);
  const observations = await server.model.observations();
  const main = observations.filter(({ step }) => step !== undefined).sort((a, b) => a.step - b.step);
  if (main[0]?.headTokens === undefined || main.length <= calls) {
    throw new Error(failureOf(ended, main.length, calls + 1));
  }
  return main;
}

/** @param {string} directory @param {Record<string, object | string>} files objects become JSON */
async function writeFiles(directory, files) {
  await makeDirectory(directory);
  for (const [name, content] of Object.entries(files)) {
    const path = join(directory, name);
    await makeDirectory(dirname(path));
    await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  }
}

/** @param {AgentRun} run @param {string} home @returns {Record<string, string>} */
function environmentOf({ node }, home) {
  return {
    PATH: [node, '/usr/local/bin', '/usr/bin', '/bin'].join(delimiter),
    HOME: home,
    USER: 'ada',
    SHELL: '/bin/sh',
    LANG: 'C.UTF-8',
    TERM: 'dumb',
  };
}

/**
 * @param {Awaited<ReturnType<typeof runProgram>>} ended
 * @param {number} got
 * @param {number} expected
 */
function failureOf({ code, timedOut, output }, got, expected) {
  const end = timedOut ? 'did not end in time' : `ended with code ${code}`;
  return `the agent ${end} after ${got} of ${expected} requests:\n${output.trim()}`;
}
