// The command line of all benchmarks except prebuilt.mjs: `--json`, `--model FILE`, and the options of the benchmark.

import { parseArgs } from 'node:util';
import { step } from '../../bin/lib/progress.mjs';
import { runMain } from '../../bin/lib/run.mjs';
import { prepare } from './prepare.mjs';

/**
 * Prepares and runs a benchmark, shows a progress bar, and prints the result as text or as one JSON object (`--json`).
 *
 * @template Result
 * @param {object} bench
 * @param {string} bench.title
 * @param {Record<string, string>} bench.options default values of the benchmark's options, by name
 * @param {Parameters<typeof prepare>[1]} [bench.needs]
 * @param {(prepared: Awaited<ReturnType<typeof prepare>>, options: Record<string, string>, onProgress: (fraction:
 *   number, detail: string) => void) => Promise<Result>} bench.measure
 * @param {(result: Result) => string} bench.report
 */
export async function runBench({ title, options, needs, measure, report }) {
  await runMain(async () => {
    const benchOptions = Object.entries(options).map(([name, value]) => [name, { type: 'string', default: value }]);
    const { values } = parseArgs({
      options: { json: { type: 'boolean' }, model: { type: 'string' }, ...Object.fromEntries(benchOptions) },
    });
    const { json, model, ...benchValues } = values;
    const prepared = await prepare(model, needs);
    try {
      const result = await step(title, {}, (progress) =>
        measure(prepared, benchValues, (fraction, detail) => progress.update({ fraction, detail })),
      );
      process.stdout.write(json ? `${JSON.stringify(result)}\n` : report(result));
    } finally {
      await prepared.cleanUp();
    }
  });
}
