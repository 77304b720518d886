// Runs the sessions of one agent, and measures which share of its head the later sessions reuse. The head of a session
// is its first prompt up to the user's words.

import { join } from 'node:path';
import { makeRepository } from './repository.mjs';
import { startServer } from './server.mjs';
import { runSession } from './session.mjs';

/** The user's words in each session. They differ from the first letter on. */
const WORDS = {
  first: 'Read README.md twice. What does this project do?',
  second: 'Is there a file that explains how bridges are built?',
  restarted: 'Name the shortest file of this project.',
  here: 'Please list the open questions of this project.',
  elsewhere: 'Which license has this project?',
};

/** The clock of the last session is ahead by this many days. */
const DAYS = 3;

/**
 * @typedef {import('./observed-model.mjs').Observation} Observation
 *
 * @typedef {object} Share
 * @property {number} share of the head of an earlier session that a session reuses
 * @property {object | undefined} difference where its prompt differs from the nearest stored prefix
 *
 * @typedef {object} Measurement
 * @property {number} headTokens of the first session
 * @property {Share} secondSession in the same directory
 * @property {Share} afterRestart in the same directory, after a restart of the server
 * @property {Share} elsewhere with portable heads, in another directory, with another home directory, on another day
 * @property {number} tokensAgain the largest number of tokens that a step prefilled although the steps before it in the
 *   session had them. Tokens that the chat template rewrites do not count
 */

/**
 * @param {import('./session.mjs').AgentRun} run
 * @param {{ modelPath: string, chatTemplate: string }} model
 * @returns {Promise<Measurement>}
 */
export async function measureAgent(run, model) {
  const { work, definition } = run;
  const { reading } = definition;
  const [here, elsewhere] = await makePlaces(work);
  const plain = { ...model, reading, portableHeads: false, directory: join(work, 'plain') };
  const portable = { ...model, reading, portableHeads: true, directory: join(work, 'portable') };

  const [first, second] = await inServer(plain, async (server) => [
    await runSession(run, server, { ...here, words: WORDS.first, calls: 2 }),
    await runSession(run, server, { ...here, words: WORDS.second }),
  ]);
  const [restarted] = await inServer(plain, async (server) => [
    await runSession(run, server, { ...here, words: WORDS.restarted }),
  ]);
  const [another, moved] = await inServer(portable, async (server) => [
    await runSession(run, server, { ...here, words: WORDS.here }),
    await runSession(run, server, { ...elsewhere, words: WORDS.elsewhere, days: DAYS }),
  ]);
  return {
    headTokens: headOf(first),
    secondSession: shareOf(first, second),
    afterRestart: shareOf(first, restarted),
    elsewhere: shareOf(another, moved),
    tokensAgain: tokensAgain(first),
  };
}

/**
 * Makes two places that have nothing in common: directories, home directories, files and commits.
 *
 * @param {string} work
 */
async function makePlaces(work) {
  const here = { home: join(work, 'ada'), folder: join(work, 'projects', 'amber') };
  const elsewhere = { home: join(work, 'users', 'grace'), folder: join(work, 'src', 'company', 'basalt-bridges') };
  await makeRepository(here.folder, { text: '# Amber\n\nLanterns of amber.\n', subject: 'Describe the lanterns' });
  await makeRepository(elsewhere.folder, { text: '# Basalt\n\nBridges.\n', subject: 'Begin with the bridges' });
  return [here, elsewhere];
}

/**
 * @template Result
 * @param {import('./server.mjs').ServerSettings} settings
 * @param {(server: import('./server.mjs').RunningServer) => Promise<Result>} use
 */
async function inServer(settings, use) {
  const server = await startServer(settings);
  try {
    return await use(server);
  } finally {
    await server.close();
  }
}

/** @param {readonly Observation[]} session the main requests @returns {number} */
function headOf([first]) {
  return /** @type {number} */ (first.headTokens);
}

/** @param {readonly Observation[]} earlier @param {readonly Observation[]} session @returns {Share} */
function shareOf(earlier, [{ cachedTokens, difference }]) {
  const head = headOf(earlier);
  return { share: Math.min(cachedTokens, head) / head, difference };
}

/** @param {readonly Observation[]} session */
function tokensAgain(session) {
  const again = session.slice(1).map(({ cachedTokens, rewrittenFrom }, index) => {
    const { promptTokens, outputTokens } = session[index];
    return (rewrittenFrom ?? promptTokens + outputTokens) - cachedTokens;
  });
  return Math.max(0, ...again);
}
