import { CACHE_OPTIONS, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { bytesText, countText, durationText } from '../words.js';

export const cacheStats = command({
  name: 'cache stats',
  summary: 'reports sizes, and the hits and misses of all processes that used the directory',
  arguments: {},
  options: CACHE_OPTIONS,
  examples: [{ line: 'cache stats', about: 'Show what the cache holds and what it has saved.' }],
  json: {
    directory: 'the path of the cache directory',
    entries: 'number of templates; `totalTokens`, `bytes` and `pinned` describe them',
    conversations: 'conversations on disk: `count`, `bytes`',
    totals: 'the counts of all processes, as in `templateCache.stats().totals`',
  },
  async run(call) {
    const { output } = call;
    await withCache(call, async (cache) => {
      const status = await cache.status();
      const { totals, conversations } = status;
      const starts = totals.hits + totals.misses;
      output.result(status, () => [
        status.directory,
        `  templates      ${countText(status.entries)}, ${countText(status.totalTokens)} tokens, ${bytesText(status.bytes)}, ${status.pinned} pinned`,
        `  conversations  ${countText(conversations.count)}, ${bytesText(conversations.bytes)}`,
        `  starts         ${countText(starts)}, of which ${countText(totals.hits)} from the cache${starts > 0 ? ` (${Math.round((100 * totals.hits) / starts)} %)` : ''}`,
        `  tokens         ${countText(totals.reusedTokens)} of ${countText(totals.requestedTokens)} reused`,
        `  saved          ${durationText(totals.prefillMsSaved)} of prefill`,
        ...(totals.corruptions > 0 ? [`  damaged        ${totals.corruptions} entries were set aside`] : []),
      ]);
    });
  },
});
