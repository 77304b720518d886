// Checks whether this machine can use a build. The build is loaded in a separate process, because loading a build for
// another CPU ends the process.

import { join } from 'node:path';
import { GPU_HINTS } from '../dist/native/loader.js';
import { packageRoot } from '../dist/native/places.js';
import { run } from './lib/run.mjs';

/**
 * @typedef {object} Trial
 * @property {string[]} devices the devices that the build can compute on, for example "CPU (AMD EPYC)"
 * @property {string | null} problem the reason why the build does not work as requested
 * @property {boolean} harmful whether the build would keep programs from starting. A harmful build is not installed.
 *
 * @param {string} path the addon's path
 * @param {'cuda' | 'metal' | 'vulkan'} [accelerator] the GPU interface of the build
 * @returns {Promise<Trial>}
 */
export async function tryBuild(path, accelerator) {
  const { signal, report } = await askDoctor({
    LLAMA_HEADSTART_ADDON: path,
    LLAMA_HEADSTART_VARIANT: 'auto',
    LLAMA_HEADSTART_CPU: '',
  });
  if (report === null) {
    const hint = signal === 'SIGILL' ? '. It was compiled for another CPU' : '';
    return {
      devices: [],
      problem: `loading it ends the process (${signal ?? 'without a message'})${hint}`,
      harmful: true,
    };
  }
  const { loaded, problem, cause } = report;
  // A GPU build cannot be loaded on a machine without the GPU's driver. That does no harm, because the loader then
  // skips the build.
  if (loaded === null && accelerator) {
    return { devices: [], problem: `${cause ?? problem}. ${GPU_HINTS[accelerator]}`, harmful: false };
  }
  if (loaded === null) return { devices: [], problem: cause ?? problem, harmful: true };
  const devices = loaded.devices.map(
    (/** @type {{ name: string, description: string }} */ d) => `${d.name} (${d.description})`,
  );
  if (accelerator === undefined || loaded.gpu === accelerator) return { devices, problem: null, harmful: false };
  const reasons = loaded.skipped.map((/** @type {{ reason: string }} */ each) => each.reason);
  return { devices, problem: `${reasons.join('; ')}. ${GPU_HINTS[accelerator]}`, harmful: false };
}

/**
 * Returns the addon that the next program loads in this environment, and the usable GPU packages that this program does
 * not load.
 * @returns {Promise<{ path: string | null, source: string | null, unused: { name: string, gpu: string }[] }>}
 */
export async function nextLoaded() {
  const { report } = await askDoctor({});
  const { loaded = null, gpuPackages = [] } = report ?? {};
  const usable = gpuPackages.filter((/** @type {{ problem: string | null }} */ { problem }) => problem === null);
  return { path: loaded?.path ?? null, source: loaded?.source ?? null, unused: loaded?.gpu ? [] : usable };
}

/** Runs `doctor --json` in a separate process. @param {NodeJS.ProcessEnv} env */
async function askDoctor(env) {
  const program = join(packageRoot, 'bin', 'llama-headstart.mjs');
  const { signal, stdout } = await run(process.execPath, [program, 'doctor', '--json'], { env });
  try {
    return { signal, report: JSON.parse(stdout) };
  } catch {
    return { signal, report: null };
  }
}
