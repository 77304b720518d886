// Runs the curl commands of the guide to the server, and compares their responses with the OpenAPI document.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { temporaryDirectory } from '../../helpers/agents.js';
import { readDocument } from '../../helpers/documents.js';
import { type DocumentedOperation, OPERATIONS, operationOf, problemOf } from '../../helpers/openapi.js';
import { startServer } from '../../helpers/server.js';

const run = promisify(execFile);

/** The commands in the guide. A command may continue on the next line. */
const commands = [...readDocument('docs/guide/server.md').matchAll(/```sh\n(.*?)```/gs)].flatMap(([, block = '']) =>
  block
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter((line) => line.startsWith('curl ')),
);

/** The endpoint that a command calls. */
function calledBy(command: string): DocumentedOperation {
  const [, path = ''] = /http:\/\/127\.0\.0\.1:8080([^\s?"]*)/.exec(command) ?? [];
  const [, method = command.includes(' -d ') ? 'POST' : 'GET'] = / -X (\w+)/.exec(command) ?? [];
  const found = operationOf(method, path);
  if (found === undefined) throw new Error(`The OpenAPI document has no endpoint for: ${command}`);
  return found;
}

/** What is wrong with the output of a command. */
function problemIn(operation: DocumentedOperation, output: string): string | undefined {
  return operation.responses[200]?.content['text/plain'] ? undefined : problemOf(operation, JSON.parse(output));
}

describe('the curl commands of the guide', () => {
  it('all succeed, and return what the OpenAPI document says', async () => {
    const ADMIN_KEY = 'admin-key';
    const open = await startServer();
    const guarded = await startServer(
      { cacheDir: await temporaryDirectory() },
      { apiKeys: [{ key: ADMIN_KEY, admin: true }] },
    );
    let RESPONSE = '';
    for (const command of commands) {
      const { url } = command.includes('$ADMIN_KEY') ? guarded : open;
      const onServer = command.replace('http://127.0.0.1:8080', url).replace('curl ', 'curl --silent --fail ');
      const [{ key: KEY = '' } = {}] = await guarded.agent.templateCache.list();
      const { stdout } = await run('bash', ['-c', onServer], { env: { ...process.env, ADMIN_KEY, KEY, RESPONSE } });
      expect([command, problemIn(calledBy(command), stdout)]).toEqual([command, undefined]);
      RESPONSE = /"id":"(resp_\w+)"/.exec(stdout)?.[1] ?? RESPONSE;
    }
  });

  it('call every endpoint', () => {
    const called = new Set(commands.map((command) => calledBy(command).title));
    expect(OPERATIONS.map(({ title }) => title).filter((title) => !called.has(title))).toEqual([]);
  });
});
