// `npm run test:agents`: runs current coding agents against the server, and measures which share of their first prompts
// later sessions reuse. Installs the agents from the npm registry, and runs them in a network namespace that has only
// loopback. Needs Linux. Takes about 20 minutes.
//
// Options: `--only NAME,NAME`; `--accept-licenses` to include agents with a proprietary license; `--latest` to run the
// newest versions and report without failing; `--template system-first` or `tools-first`; `--json`; `--keep` to keep
// the recorded requests; `--timeout SECONDS` for one session; `--allow-network`.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from '../bin/lib/progress.mjs';
import { isMain, runMain } from '../bin/lib/run.mjs';
import { modelsDirectory } from './fetch-model.mjs';
import { buildClock } from './lib/agents/clock.mjs';
import { AGENTS } from './lib/agents/definitions.mjs';
import { installAgent, latestVersion, licenseOf } from './lib/agents/install.mjs';
import { ensureAgentModel, readTemplate, TEMPLATES } from './lib/agents/model.mjs';
import { canIsolate, installedOutside, runIsolated } from './lib/agents/network.mjs';
import { endProcessesOf } from './lib/agents/processes.mjs';
import { shortfallsOf, summaryOf, tableOf } from './lib/agents/report.mjs';
import { ensureNode } from './lib/node-versions.mjs';
import { setup } from './setup.mjs';

const NODE_VERSION = '22.23.3';

const OPTIONS = /** @type {const} */ ({
  'accept-licenses': { type: 'boolean', default: false },
  'allow-network': { type: 'boolean', default: false },
  json: { type: 'boolean', default: false },
  keep: { type: 'boolean', default: false },
  latest: { type: 'boolean', default: false },
  only: { type: 'string' },
  template: { type: 'string' },
  timeout: { type: 'string', default: '300' },
});

/**
 * @typedef {ReturnType<typeof readOptions>} Options
 * @typedef {import('./lib/agents/network.mjs').InstalledAgent} InstalledAgent
 */

function readOptions() {
  const { values } = parseArgs({ options: OPTIONS });
  const named = values.only?.split(',') ?? AGENTS.map(({ name }) => name);
  const templates = values.template === undefined ? Object.keys(TEMPLATES) : [values.template];
  requireNames(
    '--only',
    named,
    AGENTS.map(({ name }) => name),
  );
  requireNames('--template', templates, Object.keys(TEMPLATES));
  return { ...values, agents: AGENTS.filter(({ name }) => named.includes(name)), templates };
}

/** @param {string} option @param {string[]} given @param {string[]} known */
function requireNames(option, given, known) {
  const unknown = given.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new Error(`Expected ${option} to have names of ${known.join(', ')}, got ${unknown.join(', ')}.`);
  }
}

async function main() {
  const options = readOptions();
  const inside = installedOutside();
  if (inside !== undefined) {
    return report(await runAll(inside, options), options);
  }
  const isolated = !options['allow-network'];
  if (isolated && !canIsolate()) {
    throw new Error(
      'Expected a network namespace for the agents (`unshare --net` and `ip`), but this machine cannot make one. ' +
        'Run as root on Linux, or pass `--allow-network` to let the agents use the network.',
    );
  }
  await setup({ quiet: true });
  const agents = await installAll(options);
  if (isolated) process.exitCode = await runIsolated(agents);
  else report(await runAll(agents, options), options);
}

/** @param {Options} options @returns {Promise<InstalledAgent[]>} */
async function installAll(options) {
  const installed = [];
  for (const { name, packageName, version: pinned, isProprietary } of options.agents) {
    if (isProprietary && !options['accept-licenses']) {
      note(`– ${name} is left out, because its license is proprietary. Pass \`--accept-licenses\` to include it.`);
      continue;
    }
    const version = (options.latest && (await latestVersion(packageName))) || pinned;
    const directory = await step(`${name} ${version}`, {}, () => installAgent(name, packageName, version));
    note(`  license: ${await licenseOf(directory, packageName)}`);
    installed.push({ name, version, directory });
  }
  return installed;
}

/**
 * Runs the agents one after another, each with each chat template.
 *
 * @param {readonly InstalledAgent[]} agents
 * @param {Options} options
 */
async function runAll(agents, options) {
  const work = await mkdtemp(join(tmpdir(), 'agents-')); // has the mode 0700
  const cleanUp = async () => {
    await endProcessesOf(work);
    if (options.keep) note(`The recorded requests are in ${work}`);
    else await rm(work, { recursive: true, force: true });
  };
  process.once('SIGINT', () => void cleanUp().finally(() => process.exit(130)));
  try {
    const modelPath = await step('model', { quiet: true }, () => ensureAgentModel(modelsDirectory()));
    const machine = { node: await ensureNode(NODE_VERSION), clock: await buildClock(work) };
    const rows = [];
    for (const agent of agents) {
      for (const template of options.templates) {
        const directory = join(work, `${agent.name}${rows.length}`);
        rows.push(await runOne(agent, { ...machine, work: directory, modelPath, template, options }));
      }
    }
    return rows;
  } finally {
    await cleanUp();
  }
}

/** @returns {Promise<import('./lib/agents/report.mjs').Row>} */
async function runOne({ name, version, directory }, { node, clock, work, modelPath, template, options }) {
  const definition = AGENTS.find((each) => each.name === name);
  const binary = join(directory, 'node_modules', definition.program);
  const program = definition.needsNode ? [node, binary] : [binary];
  const { CODING_AGENTS } = await import('llama-headstart/internal'); // needs `dist`, as the next line does
  const { measureAgent } = await import('./lib/agents/measure.mjs');
  const run = { definition, program, node: dirname(node), work, clock, timeoutMs: Number(options.timeout) * 1000 };
  const otherDay = clock !== undefined && !definition.hasOwnClock;
  const row = { agent: CODING_AGENTS[name].name, version, template, otherDay };
  try {
    const model = { modelPath, chatTemplate: await readTemplate(template) };
    const measurement = await step(`${name}, ${template}`, {}, () => measureAgent(run, model), summaryOf);
    return { ...row, measurement };
  } catch (error) {
    return { ...row, failure: /** @type {Error} */ (error).message };
  }
}

/** @param {import('./lib/agents/report.mjs').Row[]} rows @param {Options} options */
function report(rows, { json, latest }) {
  const shortfalls = rows.flatMap(shortfallsOf);
  process.stdout.write(json ? `${JSON.stringify({ rows, shortfalls }, null, 2)}\n` : `${tableOf(rows)}\n`);
  for (const { agent } of rows.filter((row) => !row.otherDay && row.template === rows[0].template)) {
    note(`  ${agent} ran elsewhere on the same day, because its clock cannot be moved`);
  }
  for (const shortfall of shortfalls) note(`✗ ${shortfall}`);
  if (shortfalls.length > 0 && !latest) process.exitCode = 1;
}

/** @param {string} line */
function note(line) {
  process.stderr.write(`${line}\n`);
}

if (isMain(import.meta)) {
  await runMain(main);
}
