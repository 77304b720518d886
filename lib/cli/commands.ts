// All commands, in the order of `--help` and of the guide.
import { bench } from './commands/bench.js';
import { build } from './commands/build.js';
import { cacheClear } from './commands/cache-clear.js';
import { cacheExport } from './commands/cache-export.js';
import { cacheImport } from './commands/cache-import.js';
import { cacheInspect } from './commands/cache-inspect.js';
import { cacheList } from './commands/cache-list.js';
import { cachePin, cacheUnpin } from './commands/cache-pin.js';
import { cachePrune } from './commands/cache-prune.js';
import { cacheStats } from './commands/cache-stats.js';
import { cacheVerify } from './commands/cache-verify.js';
import { chat } from './commands/chat.js';
import { clean } from './commands/clean.js';
import { completion } from './commands/completion.js';
import { doctor } from './commands/doctor.js';
import { explain } from './commands/explain.js';
import { launch } from './commands/launch.js';
import { modelsInspect } from './commands/models-inspect.js';
import { modelsList } from './commands/models-list.js';
import { modelsPull } from './commands/models-pull.js';
import { modelsRm } from './commands/models-rm.js';
import { run } from './commands/run.js';
import { serve } from './commands/serve.js';
import { warm } from './commands/warm.js';
import type { CommandGroup } from './program.js';

export const COMMAND_GROUPS: readonly CommandGroup[] = [
  { title: 'Conversations', commands: [launch, chat, run, serve] },
  { title: 'Requests', commands: [warm, explain] },
  {
    title: 'Cached templates',
    commands: [
      cacheList,
      cacheStats,
      cacheInspect,
      cacheVerify,
      cachePrune,
      cacheClear,
      cachePin,
      cacheUnpin,
      cacheExport,
      cacheImport,
    ],
  },
  { title: 'Models', commands: [modelsList, modelsPull, modelsRm, modelsInspect] },
  { title: 'Installation', commands: [doctor, bench, build, clean, completion] },
];

/** Summaries of the groups of two-word commands, by the first word. */
export const PARENTS: Readonly<Record<string, string>> = {
  cache: 'shows and changes the cached templates',
  models: 'shows and changes the downloaded models',
};
