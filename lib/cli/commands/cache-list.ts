import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { CacheEntry } from '../../cache/disk/operations.js';
import { CACHE_OPTIONS, withCache } from '../cache-access.js';
import { command } from '../command.js';
import type { CliIo } from '../io.js';
import { bytesText, countText, dateText } from '../words.js';

export const cacheList = command({
  name: 'cache list',
  summary: 'lists the cached templates, the most recently used first',
  arguments: {},
  options: CACHE_OPTIONS,
  examples: [
    { line: 'cache list', about: 'List the templates that the commands have cached.' },
    { line: 'cache list --cache-dir .cache/templates', about: 'List the templates of the programs in this directory.' },
  ],
  json: {
    directory: 'the path of the cache directory',
    entries:
      'the templates, each with `key`, `tokens`, `bytes`, `pinned`, `prefillMs`, `file`, `createdAt` and `lastUsedAt`',
  },
  async run(call) {
    const { output, io } = call;
    await withCache(call, async (cache) => {
      const entries = await cache.list();
      const directory = cache.disk.directory.path;
      output.result({ directory, entries }, () =>
        entries.length === 0 ? [`No templates in ${directory}.`] : output.table(HEADINGS, entries.map(cellsOf), [1, 2]),
      );
      noteOtherDirectory(directory, io, (text) => output.note(text));
    });
  },
});

const HEADINGS = ['key', 'tokens', 'size', 'last used', 'pinned'];

function cellsOf({ key, tokens, bytes, lastUsedAt, pinned }: CacheEntry): string[] {
  return [key.slice(0, 16), countText(tokens), bytesText(bytes), dateText(lastUsedAt), pinned ? 'yes' : ''];
}

/** The cache of a program is in its working directory. The user may look for that cache instead. */
function noteOtherDirectory(directory: string, { cwd }: CliIo, note: (text: string) => void): void {
  const other = join(cwd, '.cache', 'templates');
  if (other !== directory && existsSync(other)) {
    note('Programs in this directory use another cache. Pass --cache-dir .cache/templates to see it.');
  }
}
