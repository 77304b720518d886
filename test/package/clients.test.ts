// Runs the newest clients, which need a newer Node.js than this package, against the server.
import { expect, it } from 'vitest';
import { ensureNode, NODE_VERSIONS } from '../../scripts/lib/node-versions.mjs';
import { expectedReport } from '../helpers/client-report.js';
import { Project, platformName, report } from '../helpers/package.js';
import { startServer } from '../helpers/server.js';

const CLIENTS = [
  'openai@7.59.0',
  'ai@7.0.173',
  '@ai-sdk/openai-compatible@3.0.92',
  '@ai-sdk/anthropic@4.0.105',
  '@langchain/core@1.4.0',
  '@langchain/openai@1.6.0',
  '@langchain/anthropic@1.5.11',
  'zod@4.6.7',
];

const version = NODE_VERSIONS.find((each) => each.startsWith('22.')) ?? '';

it.skipIf(platformName.endsWith('-musl'))('the newest clients get texts, streams, tool calls and objects', async () => {
  const project = await Project.create('clients');
  await project.npm('install', '--ignore-scripts', ...CLIENTS);
  const server = await startServer({ contextSize: 4096 });
  const program = await project.child('clients.mjs');
  const { code, stdout, stderr } = await project.run(await ensureNode(version), [program, server.url]);
  expect(code, stderr).toBe(0);
  const found = JSON.parse(stdout);
  expect(found).toEqual(expectedReport(found));
  report(`Clients on Node ${version}: ${CLIENTS.join(', ')}`);
});
