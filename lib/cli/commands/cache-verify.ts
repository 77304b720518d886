import { CACHE_OPTIONS, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { bytesText, countText } from '../words.js';

/** The exit code if an entry was damaged. */
const DAMAGED = 1;

export const cacheVerify = command({
  name: 'cache verify',
  summary: 'reads every cached template completely, and renames damaged files to `*.corrupt`',
  arguments: {},
  options: CACHE_OPTIONS,
  examples: [{ line: 'cache verify', about: 'Check all files, for example after a crash of the machine.' }],
  json: {
    checked: 'number of entries that were read',
    intact: 'number of intact entries',
    corrupt: 'number of damaged entries',
    foreign: 'number of entries of other versions',
    bytes: 'number of bytes that were read',
  },
  exitCodes: { [DAMAGED]: 'an entry was damaged' },
  async run(call) {
    const { output, signal, step } = call;
    const report = await withCache(call, (cache) =>
      step('cached templates', (progress) =>
        cache.verify({
          signal,
          onProgress: (done, all) => progress.update({ fraction: done / all, detail: `${done} of ${all}` }),
        }),
      ),
    );
    const { checked, intact, corrupt, foreign, bytes } = report;
    output.result(report, () => [
      `${countText(checked)} entries, ${bytesText(bytes)}: ${intact} intact, ${corrupt} damaged, ${foreign} of other versions.`,
    ]);
    call.exitCode = corrupt > 0 ? DAMAGED : 0;
  },
});
