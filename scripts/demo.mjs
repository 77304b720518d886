// `npm run demo`: sets everything up, then shows on this machine what the template cache is for. The same ten sessions,
// first each with a prefill of its own, then from the cache, then from the cache of an earlier process.
//
// `npm run --silent demo -- --json` prints one JSON object on standard output, and nothing else there.

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
    const result = await summarise(model, first, second);
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : reportText(result));
    requireEqualReplies(result);
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** The model given, else SmolLM2, else a generated one with random weights. */
async function prepareModel(path) {
  const { model } = await setup({ model: path === undefined, quiet: true });
  if (path !== undefined) return { path, name: basename(path) };
  if (model !== null) return { path: model.path, name: model.name };
  const { microModels } = await setup({ microModels: true, quiet: true });
  const { generateMicroModels } = await import('../test/fixtures/micro-models/models.mjs');
  const { dense } = await generateMicroModels(microModels, { only: ['dense'] });
  process.stderr.write(
    'No source of SmolLM2 could be reached. Going on with a tiny model of random weights: its replies make no sense.\n',
  );
  return { path: dense, name: basename(dense) };
}

/** Runs demo/process.mjs and collects its events, with a line of progress. */
async function runProcess(model, cacheDir, name, [uncached, cached]) {
  const events = [];
  await step(`${name}: ${uncached + cached} sessions`, {}, async (progress) => {
    const script = join(root, 'scripts', 'demo', 'process.mjs');
    await mustRun(process.execPath, [script, model, cacheDir, String(uncached), String(cached)], {
      onLine: (line) => {
        if (!line.startsWith('{"type":')) return;
        events.push(JSON.parse(line));
        const done = events.filter(({ type }) => type === 'session').length;
        const { tier = '', ms = 0 } = events.at(-1);
        progress.update({ fraction: done / (uncached + cached), detail: `${tier} ${ms.toFixed(1)} ms` });
      },
    });
  });
  const end = events.at(-1);
  if (end?.type !== 'end') throw new Error(`The ${name} of the demo ended early`);
  return { sessions: events.filter(({ type }) => type === 'session'), stats: end.stats };
}

async function summarise(model, first, second) {
  const uncached = first.sessions.filter(({ templateCache }) => !templateCache);
  const cached = first.sessions.filter(({ templateCache }) => templateCache);
  const total = (sessions) => sessions.reduce((sum, { ms }) => sum + ms, 0);
  const pick = ({ tier, ms, cachedTokens, firstTokenMs, reply }) => ({ tier, ms, cachedTokens, firstTokenMs, reply });
  return {
    model: { name: model.name, sizeBytes: (await stat(model.path)).size, sha256: await sha256(model.path) },
    machine: { cpu: cpus()[0]?.model ?? 'unknown', threads: availableParallelism() },
    template: {
      tokens: cached[0].templateTokens,
      stateBytes: second.sessions.find(({ tier }) => tier === 'disk')?.bytes ?? 0,
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
      `Expected every session to give the same reply, got ${replies.size} different ones: this is a bug of the cache`,
    );
  }
}

async function sha256(path) {
  const hash = createHash('sha256');
  for await (const piece of createReadStream(path)) hash.update(piece);
  return hash.digest('hex');
}

if (isMain(import.meta)) await runMain(main);
