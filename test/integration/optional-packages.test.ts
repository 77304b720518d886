// Tests an installation without the optional packages: the MCP client and OpenTelemetry.
import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { addonFolders } from 'llama-headstart/internal';
import { expect, it } from 'vitest';
import { temporaryDirectory } from '../helpers/agents.js';
import { requireFreshDist } from '../helpers/children.js';
import { microModel } from '../helpers/models.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

it('agents and tools work without optional packages, and the error for MCP servers says what to install', async () => {
  requireFreshDist();
  const directory = await temporaryDirectory();
  await cp(join(root, 'dist'), join(directory, 'dist'), { recursive: true });
  await cp(join(root, 'package.json'), join(directory, 'package.json'));
  await cp(join(root, 'test/integration/children/without-peers.mjs'), join(directory, 'without-peers.mjs'));
  await mkdir(join(directory, 'node_modules'));
  const { dependencies } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  for (const name of Object.keys(dependencies)) {
    const link = join(directory, 'node_modules', name);
    await mkdir(dirname(link), { recursive: true }); // the folder of a scope
    await symlink(join(root, 'node_modules', name), link);
  }
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    [join(directory, 'without-peers.mjs'), microModel('dense')],
    { env: { ...process.env, NODE_OPTIONS: '', LLAMA_HEADSTART_ADDON: addonFolders()[0]?.path } },
  );
  expect(stderr).toBe('');
  expect(JSON.parse(stdout)).toEqual({
    outputs: ['lit'],
    missing: { code: 'MCP_FAILED', message: expect.stringContaining('npm install @modelcontextprotocol/client') },
    installed: [null, null],
  });
});
