import { CACHE_OPTIONS, entryOf, KEY, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { bytesText, countText, dateText, durationText } from '../words.js';

export const cacheInspect = command({
  name: 'cache inspect',
  summary: 'shows one cached template with the components of its key',
  arguments: { key: KEY },
  options: CACHE_OPTIONS,
  examples: [{ line: 'cache inspect 3f2a91', about: 'Show the template whose key begins with these digits.' }],
  json: {
    key: 'the key; the other fields are those of `cache list`',
    components: 'everything that the key covers besides the tokens',
  },
  async run(call) {
    const { args, output } = call;
    await withCache(call, async (cache) => {
      const entry = await cache.inspect((await entryOf(cache, args.key)).key);
      const components = Object.entries(entry.components ?? {}).filter(([, value]) => String(value) !== '');
      output.result(entry, () => [
        entry.key,
        `  file       ${entry.file}`,
        `  tokens     ${countText(entry.tokens)}`,
        `  size       ${bytesText(entry.bytes)}`,
        `  prefill    ${durationText(entry.prefillMs)}`,
        `  created    ${dateText(entry.createdAt)}`,
        `  last used  ${dateText(entry.lastUsedAt)}`,
        `  pinned     ${entry.pinned ? 'yes' : 'no'}`,
        'The key covers the tokens and:',
        ...components.map(([name, value]) => `  ${name}: ${Array.isArray(value) ? value.join(', ') : value}`),
      ]);
    });
  },
});
