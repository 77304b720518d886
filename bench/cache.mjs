// `npm run bench:cache [-- --json] [--model FILE] [--rounds N] [--entries N]`: measures how long a session takes
// to start from each source, with one cache entry and with many entries. Also measures how much a save delays a session
// that runs at the same time. Each result is the median of its trials in milliseconds. The trials of all measurements
// alternate. The baseline is llama.cpp alone (bench/native/baseline.cpp).

import { execFile } from 'node:child_process';
import { open, readdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { systemPrompt, tools } from '../scripts/demo/template.mjs';
import { manyEntries } from './lib/many-entries.mjs';
import { runBench } from './lib/run-bench.mjs';
import { TimedProgram } from './lib/timed-program.mjs';
import { interleave, median } from './lib/trials.mjs';

const START = fileURLToPath(new URL('lib/cache-start.mjs', import.meta.url));
const CONTEXT = { contextSize: 4096, kvCells: 8192, nSeqMax: 4 };
/** Commands of the baseline program. */
const BASELINE = ['memcpy', 'readChecksum', 'setData', 'loadFile', 'seqCp'];
const REPLY_TOKENS = 32;
const MESSAGE = 'Count from one to one hundred, in words, and do not stop early.';
/**
 * The number of starts from a resident template in one trial. One start takes less than a millisecond, so the trial's
 * result is the median of this many starts.
 */
const REPEATS = 25;

async function measure({ model, baselineProgram, directory }, benchOptions, onProgress) {
  const [rounds, entries] = [Number(benchOptions.rounds), Number(benchOptions.entries)];
  const { AgentServer } = await import('llama-headstart');
  const agents = [];
  const options = (dir, more = {}) => ({
    model: { source: model, ...CONTEXT },
    cache: { dir, minFreeDiskBytes: 0, ...more },
    systemPrompt,
    tools,
    sampling: { temperature: 0 },
  });
  const start = async (cacheDir, more) => {
    const agent = await AgentServer.initialize(options(cacheDir, more));
    agents.push(agent);
    return agent;
  };
  const cacheDir = join(directory, 'cache');
  const manyDir = join(directory, 'many');

  const first = await start(cacheDir);
  const { report: cold } = await closed(await first.createSession());
  await first.flush();
  const { size: bytes, tokensFile, stateFile } = await entryOf(cacheDir, directory, cold);
  await first.close();
  await manyEntries(cacheDir, manyDir, entries);

  const baseline = await TimedProgram.start(baselineProgram, {
    model,
    threads: availableParallelism(),
    kvCells: CONTEXT.kvCells,
    sequences: CONTEXT.nSeqMax + 4,
    tokensFile,
    stateFile,
  });
  const unsaved = await start(null, { reuse: 'exact' });
  const saving = await start(join(directory, 'saving'), { reuse: 'exact' });
  const noResidents = { maxResidentTemplates: 0 };
  const measures = {
    ...(await missesOf(unsaved, saving)),
    ...baselineMeasures(baseline),
    ...(await startsOf(cacheDir, '')),
    ...(await startsOf(manyDir, '10k')),
  };
  const blockedMs = [];
  const medians = await interleave(rounds, measures, onProgress);
  await baseline.stop();
  for (const agent of agents) await agent.close();
  const pick = (names, suffix = '') => Object.fromEntries(names.map((name) => [name, medians[name + suffix]]));
  const tiers = ['disk', 'memory', 'resident', 'nearest'];
  const baselineMs = pick(BASELINE, 'Baseline');
  return {
    model: basename(model),
    template: { tokens: cold.templateTokens, bytes },
    ms: { ...pick(['prefill', 'miss', 'missSaving']), saveBlocked: median(blockedMs.slice(1)), ...pick(tiers) },
    ms10k: pick(tiers, '10k'),
    baseline: baselineMs,
    floor: baselineMs, // the earlier name of `baseline`, for programs that still read it
  };

  /**
   * Returns three trials. Each trial starts the first session of a template. `prefill` bypasses the template cache and
   * measures only the start. `miss` caches the template only in memory. `missSaving` also saves the template to disk.
   * `miss` and `missSaving` measure the start of the session and its whole reply.
   */
  async function missesOf(without, withSaving) {
    let trial = 0;
    const reply = async (agent) => {
      const begin = performance.now();
      const session = await agent.createSession({ systemPrompt: `${trial} times asked. ${systemPrompt}` });
      const { usage } = await session.send(MESSAGE, { maxTokens: REPLY_TOKENS });
      const ms = performance.now() - begin;
      if (session.report.cache !== 'miss') throw new Error(`Expected a miss, got ${session.report.cache}`);
      if (usage.outputTokens !== REPLY_TOKENS)
        throw new Error(`Expected a reply of ${REPLY_TOKENS} tokens, got ${usage.outputTokens}`);
      await session.close();
      return { ms, begin };
    };
    return {
      prefill: async () => {
        trial++; // the other two trials use the template of the latest `prefill` trial
        const session = await without.createSession({
          templateCache: false,
          systemPrompt: `${trial} times asked. ${systemPrompt}`,
        });
        await session.close();
        return session.report.ms;
      },
      miss: async () => {
        const { ms } = await reply(without);
        await without.templateCache.clear();
        return ms;
      },
      missSaving: async () => {
        const before = withSaving.getTemplateCacheStats();
        const { ms, begin } = await reply(withSaving);
        // The trial includes the save. If the reply ends before the save, the trial lasts until the entry is on disk.
        const isSaved = withSaving.getTemplateCacheStats().saves > before.saves;
        await withSaving.flush();
        blockedMs.push(withSaving.getTemplateCacheStats().saveBlockedMs - before.saveBlockedMs);
        const savedMs = performance.now() - begin;
        await withSaving.templateCache.clear();
        return isSaved ? ms : savedMs;
      },
    };
  }

  /** Returns one trial per source. Each trial starts a session from its source, with `path` as the cache directory. */
  async function startsOf(path, suffix) {
    const resident = await start(path);
    const memory = await start(path, noResidents);
    const nearest = await start(path, { ...noResidents, maxMemoryBytes: 0 });
    await closed(await resident.createSession());
    await closed(await memory.createSession());
    let changed = 0;
    return {
      [`disk${suffix}`]: () => startInOtherProcess(options(path)),
      [`memory${suffix}`]: () => repeated(memory, 'memory', 5),
      [`resident${suffix}`]: () => repeated(resident, 'resident', REPEATS),
      [`nearest${suffix}`]: async () => {
        const others = [
          ...tools.slice(0, -1),
          { ...tools.at(-1), description: `Changed for the ${++changed}th time.` },
        ];
        const { report } = await closed(await nearest.createSession({ tools: others }));
        if (report.cache !== 'prefix') throw new Error(`Expected the cache result "prefix", got "${report.cache}"`);
        await nearest.flush();
        await nearest.templateCache.invalidate({ tools: others });
        return report.ms;
      },
    };
  }
}

function baselineMeasures(baseline) {
  return Object.fromEntries(BASELINE.map((name) => [`${name}Baseline`, () => baseline.ms(name)]));
}

async function repeated(agent, source, times) {
  const all = [];
  for (let time = 0; time < times; time++) {
    const begin = performance.now();
    const session = await agent.createSession();
    all.push(performance.now() - begin);
    if (session.report.source !== source)
      throw new Error(`Expected a start from ${source}, got ${session.report.source}`);
    await session.close();
  }
  return median(all);
}

async function startInOtherProcess(options) {
  const { stdout } = await promisify(execFile)(process.execPath, [START, JSON.stringify(options)]);
  const { source, ms } = JSON.parse(stdout);
  if (source !== 'disk') throw new Error(`Expected a start from disk, got ${source}`);
  return ms;
}

async function closed(session) {
  await session.close();
  return session;
}

/** Finds the saved entry and copies its token ids to a separate file. */
async function entryOf(cacheDir, directory, { templateTokens }) {
  const name = (await readdir(cacheDir)).find((file) => file.endsWith('.kv'));
  const stateFile = join(cacheDir, name);
  const tokensFile = join(directory, 'tokens');
  const file = await open(stateFile);
  const { size } = await file.stat();
  const tokens = Buffer.alloc(4 * templateTokens);
  await file.read(tokens, 0, tokens.length, 12);
  await file.close();
  await writeFile(tokensFile, tokens);
  return { size, tokensFile, stateFile };
}

function report({ model, template, ms, ms10k, baseline }) {
  const line = (name, value, target) =>
    `${name.padEnd(12)} ${value.toFixed(2).padStart(9)} ms   target ${target.toFixed(2).padStart(8)} ms   ${(value / target).toFixed(3)}`;
  const targets = {
    resident: 0.5,
    memory: 1.25 * baseline.setData + 2,
    disk: 1.25 * (baseline.readChecksum + baseline.setData) + 15,
    missSaving: 1.03 * ms.miss,
    saveBlocked: 0.01 * ms.missSaving,
  };
  return [
    `${model}: a template of ${template.tokens} tokens, ${template.bytes} bytes`,
    `prefill ${ms.prefill.toFixed(0)} ms, miss ${ms.miss.toFixed(0)} ms, nearest ${ms.nearest.toFixed(1)} ms`,
    ...Object.entries(targets).map(([name, target]) => line(name, ms[name], target)),
    ...Object.entries(ms10k).map(([name, value]) => line(`10k ${name}`, value, 1.1 * ms[name] + 0.2)),
    `baseline: ${Object.entries(baseline)
      .map(([name, value]) => `${name} ${value.toFixed(3)} ms`)
      .join(', ')}`,
    '',
  ].join('\n');
}

await runBench({ title: 'cache benchmark', options: { rounds: '5', entries: '10000' }, measure, report });
