// All commands, in the order of `--help` and of the guide.
import { build } from './commands/build.js';
import { clean } from './commands/clean.js';
import { completion } from './commands/completion.js';
import { doctor } from './commands/doctor.js';
import type { CommandGroup } from './program.js';

export const COMMAND_GROUPS: readonly CommandGroup[] = [
  { title: 'Installation', commands: [doctor, build, clean, completion] },
];

/** What the commands with two words have in common, by their first word. */
export const PARENTS: Readonly<Record<string, string>> = {};
