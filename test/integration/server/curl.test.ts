// Runs the curl commands of the guide to the server.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { readDocument } from '../../helpers/documents.js';
import { startServer } from '../../helpers/server.js';

const run = promisify(execFile);

/** The commands in the guide. A command may continue on the next line. */
const commands = [...readDocument('docs/guide/server.md').matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block = '']) =>
  block
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => line.startsWith('curl ')),
);

describe('the curl commands of the guide', () => {
  it('all succeed', async () => {
    const ADMIN_KEY = 'admin-key';
    const cacheDir = await temporaryDirectory();
    const open = await startServer();
    const guarded = await startServer({ cacheDir }, { apiKeys: [{ key: ADMIN_KEY, admin: true }] });
    expect(commands.length).toBeGreaterThan(10);
    for (const command of commands) {
      const { url } = command.includes('$ADMIN_KEY') ? guarded : open;
      const onServer = command.replace('http://127.0.0.1:8080', url).replace('curl ', 'curl --silent --fail ');
      const [{ key: KEY = '' } = {}] = await guarded.agent.templateCache.list();
      const { stdout } = await run('bash', ['-c', onServer], { env: { ...process.env, ADMIN_KEY, KEY } });
      expect([command, stdout.length > 0]).toEqual([command, true]);
    }
  });
});
