// Checks whether this machine can use a build. The build is loaded in a separate process, because loading a build for
// another CPU ends the process.
import { join } from 'node:path';
import { GPU_HINTS } from '../native/loader.js';
import { type GpuKind, packageRoot } from '../native/places.js';
import type { DoctorReport } from './doctor-report.js';
import { packageScript } from './package-scripts.js';

export interface Trial {
  /** The devices that the build can compute on, for example `CPU (AMD EPYC)`. */
  devices: string[];
  /** The reason why the build does not work as requested. */
  problem: string | null;
  /** Whether the build would keep programs from starting. A harmful build is not installed. */
  harmful: boolean;
}

/**
 * @param path the addon's path
 * @param accelerator the GPU interface of the build
 */
export async function tryBuild(path: string, accelerator: GpuKind | undefined): Promise<Trial> {
  const { signal, report } = await askDoctor({
    LLAMA_HEADSTART_ADDON: path,
    LLAMA_HEADSTART_VARIANT: 'auto',
    LLAMA_HEADSTART_CPU: '',
  });
  if (report === undefined) {
    const hint = signal === 'SIGILL' ? '. It was compiled for another CPU' : '';
    const problem = `loading it ends the process (${signal ?? 'without a message'})${hint}`;
    return { devices: [], problem, harmful: true };
  }
  const { loaded, problem, cause } = report;
  // A GPU build cannot be loaded on a machine without the GPU's driver. Such a build is harmless, because the loader
  // skips it.
  if (loaded === null && accelerator) {
    return { devices: [], problem: `${cause ?? problem}. ${GPU_HINTS[accelerator]}`, harmful: false };
  }
  if (loaded === null) {
    return { devices: [], problem: cause ?? problem, harmful: true };
  }
  const devices = loaded.devices.map(({ name, description }) => `${name} (${description})`);
  if (accelerator === undefined || loaded.gpu === accelerator) {
    return { devices, problem: null, harmful: false };
  }
  const reasons = loaded.skipped.map(({ reason }) => reason).join('; ');
  return { devices, problem: `${reasons}. ${GPU_HINTS[accelerator]}`, harmful: false };
}

export interface NextLoaded {
  path: string | null;
  source: string | null;
  /** The usable GPU packages that the program does not load. */
  unused: { name: string; gpu: string }[];
}

/** The addon that the next program loads in this environment. */
export async function nextLoaded(): Promise<NextLoaded> {
  const { report } = await askDoctor({});
  const loaded = report?.loaded ?? null;
  const usable = (report?.gpuPackages ?? []).filter(({ problem }) => problem === null);
  return { path: loaded?.path ?? null, source: loaded?.source ?? null, unused: loaded?.gpu ? [] : usable };
}

/** Runs `doctor --json` in a separate process. */
async function askDoctor(
  env: NodeJS.ProcessEnv,
): Promise<{ signal: NodeJS.Signals | null; report: DoctorReport | undefined }> {
  const { run } = await packageScript('run.mjs');
  const program = join(packageRoot, 'bin', 'llama-headstart.mjs');
  const { signal, stdout } = await run(process.execPath, [program, 'doctor', '--json'], { env });
  try {
    return { signal, report: JSON.parse(stdout) as DoctorReport };
  } catch {
    return { signal, report: undefined };
  }
}
