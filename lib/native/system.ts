import { type Device, loadedAddon } from './addon.js';
import type { GpuKind } from './places.js';

export type { Device } from './addon.js';

/** Describes the build of the addon, and the machine. */
export interface SystemInfo {
  /** llama.cpp's version. */
  llamaVersion: string;
  /** CPU features and backends, as llama.cpp prints them. */
  features: string;
  /** The maximum number of sequences of one context. */
  maxSequences: number;
  /** Whether layers can be offloaded to a GPU. */
  supportsGpuOffload: boolean;
  /** The path of the loaded addon. */
  addonPath: string;
  /** The origin of the addon: see docs/guide/building.md. */
  addonSource: 'environment' | 'checkout' | 'build' | 'prebuilt';
  /** The CPU module in use ("haswell", "zen4", "armv8.2_2"), or null if the addon was compiled for this CPU only. */
  cpuModule: string | null;
  /** The GPU backend in use, or null. */
  gpu: GpuKind | null;
  /** The devices that can compute: the CPU, accelerators and GPUs. */
  devices: readonly Device[];
}

/** Describes the native addon and the machine on which it runs. */
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
