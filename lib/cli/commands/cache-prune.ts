import { size } from '../../option-types.js';
import { CACHE_OPTIONS, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { bytesOption, durationOption, numberOption } from '../option.js';

export const cachePrune = command({
  name: 'cache prune',
  summary: 'deletes the least recently used templates until the budgets are met, and files that dead processes left',
  details: ['Without a budget, `prune` deletes only temporary files and old damaged files. Pinned templates stay.'],
  arguments: {},
  options: {
    maxBytes: bytesOption('maximum size of all templates'),
    maxEntries: numberOption('number', size(), 'maximum number of templates'),
    maxAge: durationOption('maximum time since the last use'),
    ...CACHE_OPTIONS,
  },
  examples: [
    { line: 'cache prune --max-bytes 20GB', about: 'Keep the most recently used templates, at most 20 GB.' },
    { line: 'cache prune --max-age 30d', about: 'Delete the templates that nothing has used for 30 days.' },
  ],
  json: {
    entries: 'number of deleted templates',
    temporaryFiles: 'number of deleted temporary files',
    corruptFiles: 'number of deleted damaged files',
  },
  async run(call) {
    const { options, output } = call;
    const { maxBytes: maxDiskBytes, maxEntries, maxAge: maxAgeMs } = options;
    const budget = {
      ...(maxDiskBytes !== undefined && { maxDiskBytes }),
      ...(maxEntries !== undefined && { maxEntries }),
      ...(maxAgeMs !== undefined && { maxAgeMs }),
    };
    const report = await withCache(call, (cache) => cache.prune(budget));
    const { entries, temporaryFiles, corruptFiles } = report;
    output.result(
      report,
      () => `Deleted: ${entries} templates, ${temporaryFiles} temporary files, ${corruptFiles} damaged files.`,
    );
  },
});
