// Runs a script in a network namespace that has only loopback, so that an agent can reach nothing but the server.

import { spawnSync } from 'node:child_process';
import { run } from '../../../bin/lib/run.mjs';

/**
 * @typedef {object} InstalledAgent
 * @property {string} name
 * @property {string} version
 * @property {string} directory the folder that contains `node_modules`
 */

/** In the namespace: the installed agents as JSON. */
const INSTALLED = 'LLAMA_HEADSTART_INSTALLED_AGENTS';
const UNSHARE = ['--net', '--mount', ...(process.getuid?.() === 0 ? [] : ['--map-root-user'])];

/** Returns the agents that were installed outside; undefined if this process is not in the namespace. */
export function installedOutside() {
  const json = process.env[INSTALLED];
  return json === undefined ? undefined : /** @type {InstalledAgent[]} */ (JSON.parse(json));
}

/** Whether this machine can make such a namespace. */
export function canIsolate() {
  return spawnSync('unshare', [...UNSHARE, 'ip', 'link', 'set', 'lo', 'up']).status === 0;
}

/**
 * Runs this script again in a namespace.
 *
 * @param {readonly InstalledAgent[]} agents
 * @returns {Promise<number>} its exit code
 */
export async function runIsolated(agents) {
  const script = ['sh', '-c', 'ip link set lo up && exec "$0" "$@"', process.execPath, ...process.argv.slice(1)];
  const env = { [INSTALLED]: JSON.stringify(agents) };
  const { code } = await run('unshare', [...UNSHARE, ...script], { cwd: process.cwd(), inherit: true, env });
  return code;
}
