// Whether a build can be used on this machine. It is loaded in a process of its own, which one for another CPU ends.

import { join } from 'node:path';
import { GPU_HINTS } from '../dist/native/loader.js';
import { packageRoot } from '../dist/native/places.js';
import { run } from './lib/run.mjs';

/**
 * @typedef {object} Trial
 * @property {string[]} devices what it computes on: "CPU (AMD EPYC)"
 * @property {string | null} problem why it is not what was asked for
 * @property {boolean} harmful whether a program that found it would not start: then nothing may find it
 *
 * @param {string} path of the addon
 * @param {'cuda' | 'metal' | 'vulkan'} [accelerator] that it was built for
 * @returns {Promise<Trial>}
 */
export async function tryBuild(path, accelerator) {
  const { signal, facts } = await askDoctor({
    LLAMA_HEADSTART_ADDON: path,
    LLAMA_HEADSTART_VARIANT: 'auto',
    LLAMA_HEADSTART_CPU: '',
  });
  if (facts === null) {
    const hint = signal === 'SIGILL' ? ': it was compiled for another CPU' : '';
    return {
      devices: [],
      problem: `it ends the process that loads it (${signal ?? 'without a word'})${hint}`,
      harmful: true,
    };
  }
  const { loaded, problem, cause } = facts;
  // The loader passes by what the system cannot load: a build for a GPU lacks its driver where there is no GPU.
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
 * Which addon the next program loads, in this environment, and the GPU packages that it leaves alone.
 * @returns {Promise<{ path: string | null, source: string | null, left: { name: string, gpu: string }[] }>}
 */
export async function nextLoaded() {
  const { facts } = await askDoctor({});
  const { loaded = null, gpuPackages = [] } = facts ?? {};
  const usable = gpuPackages.filter((/** @type {{ problem: string | null }} */ { problem }) => problem === null);
  return { path: loaded?.path ?? null, source: loaded?.source ?? null, left: loaded?.gpu ? [] : usable };
}

/** @param {NodeJS.ProcessEnv} env */
async function askDoctor(env) {
  const program = join(packageRoot, 'bin', 'llama-headstart.mjs');
  const { signal, stdout } = await run(process.execPath, [program, 'doctor', '--json'], { env });
  try {
    return { signal, facts: JSON.parse(stdout) };
  } catch {
    return { signal, facts: null };
  }
}
