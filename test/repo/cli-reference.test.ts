// docs/guide/cli.md matches the descriptions of the commands. `npm run docs` generates the page again.
import { aboutOf, COMMAND_GROUPS, EXIT_CODES, flagOf, GLOBAL_OPTIONS } from 'llama-headstart/internal';
import { expect, it } from 'vitest';
import { cliReference } from '../../scripts/cli-reference.mjs';

it('the guide to the command line matches the descriptions of its commands', async () => {
  const page = cliReference(COMMAND_GROUPS, GLOBAL_OPTIONS, EXIT_CODES, { flagOf, aboutOf });
  await expect(page).toMatchFileSnapshot('../../docs/guide/cli.md');
});
