import { CACHE_OPTIONS, entryOf, KEY, withCache } from '../cache-access.js';
import { type Call, command } from '../command.js';

const ARGUMENTS = { keys: { ...KEY, variadic: true } } as const;
const JSON_FIELDS = { keys: 'the keys of the templates', pinned: 'whether they are pinned now' };

export const cachePin = command({
  name: 'cache pin',
  summary: 'protects templates from deletion by budgets, in every process and after restarts',
  arguments: ARGUMENTS,
  options: CACHE_OPTIONS,
  examples: [{ line: 'cache pin 3f2a91', about: 'Keep the template whose key begins with these digits.' }],
  json: JSON_FIELDS,
  run: (call) => setPinned(call, true),
});

export const cacheUnpin = command({
  name: 'cache unpin',
  summary: 'allows the deletion of pinned templates again',
  arguments: ARGUMENTS,
  options: CACHE_OPTIONS,
  examples: [{ line: 'cache unpin 3f2a91', about: 'Treat this template like every other one.' }],
  json: JSON_FIELDS,
  run: (call) => setPinned(call, false),
});

async function setPinned(call: Call<typeof ARGUMENTS, typeof CACHE_OPTIONS>, pinned: boolean): Promise<void> {
  const { args, output } = call;
  await withCache(call, async (cache) => {
    const entries = await Promise.all(args.keys.map((digits) => entryOf(cache, digits)));
    const keys = entries.map(({ key }) => key);
    for (const key of keys) {
      await cache.setPinned(key, pinned);
    }
    output.result({ keys, pinned }, () => keys.map((key) => `${pinned ? 'pinned' : 'not pinned any more'}: ${key}`));
  });
}
