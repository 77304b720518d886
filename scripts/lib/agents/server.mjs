// Starts the server that answers an agent.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentServer } from 'llama-headstart';
import { createHandler, listen } from 'llama-headstart/server';
import { makeDirectory } from '../../../bin/lib/make-directory.mjs';
import { CONTEXT_SIZE } from './model.mjs';
import { ObservedModel } from './observed-model.mjs';

/** Some agents write the name of the model into their prompts. */
export const MODEL_NAME = 'local-model';

/**
 * @typedef {object} ServerSettings
 * @property {string} modelPath
 * @property {string} chatTemplate
 * @property {string} directory for the cache and the recorded requests
 * @property {boolean} portableHeads
 * @property {import('./observed-model.mjs').Reading} reading
 *
 * @typedef {Awaited<ReturnType<typeof startServer>>} RunningServer
 */

/** @param {ServerSettings} settings */
export async function startServer({ modelPath, chatTemplate, directory, portableHeads, reading }) {
  const bodies = join(directory, 'requests');
  await makeDirectory(bodies);
  const agent = await AgentServer.initialize({
    model: { source: modelPath, id: MODEL_NAME, chatTemplate, contextSize: CONTEXT_SIZE, kvCells: 2 * CONTEXT_SIZE },
    cache: { dir: join(directory, 'cache'), conversations: { minSpeedup: 0 }, minFreeDiskBytes: 0 },
  });
  const model = new ObservedModel(agent, reading);
  const handler = recorded(createHandler(model, { portableHeads }), bodies);
  const { url, close } = await listen(handler, { port: 0, closeTimeoutMs: 1000 });
  return {
    url,
    model,
    close: async () => {
      await close();
      await agent.close();
    },
  };
}

/**
 * Returns a handler that also records the bodies of requests.
 *
 * @param {import('llama-headstart/server').Handler} handler
 * @param {string} directory
 */
function recorded(handler, directory) {
  /** @param {Request} request */
  const record = async (request) => {
    if (request.method !== 'POST') return handler(request);
    const body = await request.clone().text();
    const name = `${Date.now()}${new URL(request.url).pathname.replaceAll('/', '-')}.json`;
    await writeFile(join(directory, name), body, { mode: 0o600 });
    return handler(request);
  };
  return Object.assign(record, { needsKey: handler.needsKey });
}
