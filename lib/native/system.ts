import { type Device, loadedAddon } from './addon.js';
import type { GpuKind } from './places.js';

export type { Device } from './addon.js';

/** The addon's build, and the machine. */
export interface SystemInfo {
  /** llama.cpp's version. */
  llamaVersion: string;
  /** CPU features and backends, as llama.cpp prints them. */
  features: string;
  /** Most sequences that one context can have. */
  maxSequences: number;
  /** Whether layers can be put on a GPU. */
  supportsGpuOffload: boolean;
  /** The addon that was loaded. */
  addonPath: string;
  /** Where it comes from: see docs/guide/building.md. */
  addonSource: 'environment' | 'checkout' | 'build' | 'prebuilt';
  /** The CPU module in use ("haswell", "zen4", "armv8.2_2"), or null where the addon was compiled for this CPU alone. */
  cpuModule: string | null;
  /** The GPU backend in use. */
  gpu: GpuKind | null;
  /** What computes: the CPU, and GPUs. */
  devices: readonly Device[];
}

/** What the native addon was built with and runs on. */
export function systemInfo(): SystemInfo {
  const { raw, started, folder, gpu } = loadedAddon();
  return {
    llamaVersion: raw.llamaVersion,
    features: started.systemInfo,
    maxSequences: raw.maxSequences,
    supportsGpuOffload: started.supportsGpuOffload,
    addonPath: folder.path,
    addonSource: folder.source,
    cpuModule: started.cpu,
    gpu,
    devices: started.devices,
  };
}
