import { CACHE_OPTIONS, withCache } from '../cache-access.js';
import { command } from '../command.js';
import { flag } from '../option.js';
import { requireConsent } from '../questions.js';

export const cacheClear = command({
  name: 'cache clear',
  summary: 'deletes all cached templates, even pinned ones',
  details: ['On a terminal, `clear` asks first. Conversations on disk stay.'],
  arguments: {},
  options: { yes: flag('do not ask', { isConfigurable: false }), ...CACHE_OPTIONS },
  examples: [{ line: 'cache clear --yes', about: 'Delete all templates without a question.' }],
  json: { deleted: 'number of deleted templates' },
  async run(call) {
    const { options, output } = call;
    await withCache(call, async (cache) => {
      const { entries, directory } = await cache.status();
      if (entries > 0) {
        await requireConsent(call, options.yes, `Delete ${entries} templates in ${directory}?`);
      }
      const deleted = await cache.clear();
      output.result({ deleted }, () => `Deleted ${deleted} templates.`);
    });
  },
});
