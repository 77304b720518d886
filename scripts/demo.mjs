// `npm run demo`: prepares this checkout, then shows the effect of the template cache on this machine. The demo starts
// the same ten sessions three times: without the cache, with the cache, and with the cache in a second process.
//
// `npm run --silent demo -- --json` prints only one JSON object to stdout.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { step } from '../bin/lib/progress.mjs';
import { isMain, mustRun, root, runMain } from '../bin/lib/run.mjs';
import { reportText } from './demo/report.mjs';
import { setup } from './setup.mjs';

const SESSIONS = 10;

async function main() {
  const { values } = parseArgs({ options: { json: { type: 'boolean' }, model: { type: 'string' } } });
  const model = await prepareModel(values.model);
  const cacheDir = await mkdtemp(join(tmpdir(), 'llama-headstart-demo-'));
  try {
    const first = await runProcess(model.path, cacheDir, 'first process', [SESSIONS, SESSIONS]);
    const second = await runProcess(model.path, cacheDir, 'second process', [0, SESSIONS]);
    const result = await summarize(model, first, second);
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : reportText(result));
    requireEqualReplies(result);
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/**
 * Returns the model at `path`. If `path` is undefined, returns SmolLM2, or a generated model with random weights if
 * SmolLM2 cannot be downloaded.
 */
async function prepareModel(path) {
  const { model } = await setup({ model: path === undefined, quiet: true });
  if (path !== undefined) return { path, name: basename(path) };
  if (model !== null) return { path: model.path, name: model.name };
  const { microModels } = await setup({ microModels: true, quiet: true });
  const { generateMicroModels } = await import('../test/fixtures/micro-models/models.mjs');
  const { dense } = await generateMicroModels(microModels, { only: ['dense'] });
  process.stderr.write(
    'SmolLM2 could not be downloaded. Continuing with a tiny model that has random weights. Its replies make no sense.\n',
  );
  return { path: dense, name: basename(dense) };
}

/**
 * Runs demo/process.mjs and shows a line of progress. Returns the sessions and the statistics that the process printed.
 */
async function runProcess(model, cacheDir, name, [uncached, cached]) {
  const events = [];
  await step(`${name}: ${uncached + cached} sessions`, {}, async (progress) => {
    const script = join(root, 'scripts', 'demo', 'process.mjs');
    await mustRun(process.execPath, [script, model, cacheDir, String(uncached), String(cached)], {
      onLine: (line) => {
        if (!line.startsWith('{"type":')) return;
        events.push(JSON.parse(line));
        const done = events.filter(({ type }) => type === 'session').length;
        const { source = '', ms = 0 } = events.at(-1);
        progress.update({ fraction: done / (uncached + cached), detail: `${source} ${ms.toFixed(1)} ms` });
      },
    });
  });
  const end = events.at(-1);
  if (end?.type !== 'end') throw new Error(`The ${name} of the demo ended before its last session.`);
  return { sessions: events.filter(({ type }) => type === 'session'), stats: end.stats };
}

async function summarize(model, first, second) {
  const uncached = first.sessions.filter(({ templateCache }) => !templateCache);
  const cached = first.sessions.filter(({ templateCache }) => templateCache);
  const total = (sessions) => sessions.reduce((sum, { ms }) => sum + ms, 0);
  const pick = ({ source, cache, tier, ms, cachedTokens, firstTokenMs, reply }) => ({
    ...{ source, cache, tier, ms, cachedTokens, firstTokenMs, reply },
  });
  return {
    model: { name: model.name, sizeBytes: (await stat(model.path)).size, sha256: await sha256(model.path) },
    machine: { cpu: cpus()[0]?.model ?? 'unknown', threads: availableParallelism() },
    template: {
      tokens: cached[0].templateTokens,
      stateBytes: second.sessions.find(({ source }) => source === 'disk')?.bytes ?? 0,
      key: cached[0].key,
    },
    uncached: { sessions: uncached.map(({ ms, reply }) => ({ ms, reply })) },
    cached: [
      { process: 1, sessions: cached.map(pick) },
      { process: 2, sessions: second.sessions.map(pick) },
    ],
    totals: {
      uncachedMs: total(uncached),
      cachedMs: total(cached),
      secondProcessMs: total(second.sessions),
      speedup: total(uncached) / total(cached),
    },
    stats: second.stats,
  };
}

function requireEqualReplies({ uncached, cached }) {
  const replies = new Set(
    [...uncached.sessions, ...cached.flatMap(({ sessions }) => sessions)].map(({ reply }) => reply),
  );
  if (replies.size !== 1) {
    throw new Error(
      `Expected the same reply in every session, got ${replies.size} different replies. This is a bug in the cache: please report it.`,
    );
  }
}

async function sha256(path) {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest('hex');
}

if (isMain(import.meta)) await runMain(main);
