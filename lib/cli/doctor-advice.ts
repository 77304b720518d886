// Finds what makes replies and starts slow on this machine, for `llama-headstart doctor`.
import type { StatsFs } from 'node:fs';
import { readFile, statfs } from 'node:fs/promises';
import { createServer } from 'node:net';
import { availableParallelism, loadavg } from 'node:os';
import { dirname, join } from 'node:path';
import type { DirectoryState, LoadedReport } from './doctor-report.js';

/** Something that costs time. */
export interface Slowness {
  /** What is slow: a sentence. */
  what: string;
  /** What to do: a sentence. */
  fix: string;
}

/** The input of the checks. */
export interface Machine {
  loaded: LoadedReport | null;
  /** The GPUs that the NVIDIA driver lists. */
  nvidia: readonly string[];
  /** The directory in which commands keep templates. */
  cacheDirectory: DirectoryState;
}

/** The share of a disk that the cache leaves free, and the least number of bytes: see `minFreeDiskBytes`. */
const MIN_FREE_RATIO = 0.05;
const MIN_FREE_BYTES = 2 * 1024 ** 3;
/** Types of network file systems, as `statfs` numbers them: NFS, SMB, CIFS, SMB2, 9P. */
const NETWORK_FILE_SYSTEMS: readonly number[] = [0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x01021997];

/** @returns the causes that were found, the most costly first */
export async function findSlowness(machine: Machine): Promise<Slowness[]> {
  const disk = await diskOf(machine.cacheDirectory);
  const found = await Promise.all([
    unusedGpu(machine),
    debugBuild(machine),
    cpuQuota(),
    busyMachine(),
    powerSaving(),
    unusableCache(machine),
    fullDisk(machine, disk),
    networkDisk(machine, disk),
  ]);
  return found.filter((slowness) => slowness !== undefined);
}

function unusedGpu({ loaded, nvidia }: Machine): Slowness | undefined {
  if (loaded === null || nvidia.length === 0 || loaded.gpu !== null) {
    return undefined;
  }
  return {
    what: 'This machine has an NVIDIA GPU, but models run on the CPU.',
    fix: 'Install the CUDA package of llama-headstart, or run `llama-headstart build --cuda`.',
  };
}

async function debugBuild({ loaded }: Machine): Promise<Slowness | undefined> {
  if (loaded === null) {
    return undefined;
  }
  const manifest = await readFile(join(dirname(loaded.path), 'build.json'), 'utf8').catch(() => '{}');
  return /"debug":\s*true/.test(manifest)
    ? { what: 'The addon is compiled without optimization.', fix: 'Compile it again without --debug.' }
    : undefined;
}

/** A container may allow less CPU time than the cores could use. With one thread for each core, threads then wait. */
async function cpuQuota(): Promise<Slowness | undefined> {
  const text = await readFile('/sys/fs/cgroup/cpu.max', 'utf8').catch(() => '');
  const [quota, period] = text.split(' ').map(Number);
  const cores = quota && period ? quota / period : Number.POSITIVE_INFINITY;
  return cores < availableParallelism()
    ? {
        what: `This container may use ${cores.toFixed(1)} of ${availableParallelism()} cores, and models use one thread for each core.`,
        fix: `Set --threads ${Math.max(1, Math.floor(cores))}, or \`nThreads\` in a program.`,
      }
    : undefined;
}

function busyMachine(): Slowness | undefined {
  const [load = 0] = loadavg();
  const cores = availableParallelism();
  return load > cores
    ? {
        what: `Other programs use the processor: the load is ${load.toFixed(1)} on ${cores} cores.`,
        fix: 'Stop them, or lower --threads: a model waits for its slowest thread.',
      }
    : undefined;
}

async function powerSaving(): Promise<Slowness | undefined> {
  const path = '/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor';
  const governor = (await readFile(path, 'utf8').catch(() => '')).trim();
  return governor === 'powersave'
    ? {
        what: 'The processor saves power (governor `powersave`).',
        fix: 'Choose `performance` or `schedutil`, for example with `cpupower frequency-set -g performance`.',
      }
    : undefined;
}

function unusableCache({ cacheDirectory: { path, writable, problem } }: Machine): Slowness | undefined {
  if (writable && problem === null) {
    return undefined;
  }
  return {
    what: `Every process starts cold, because ${path ?? 'the cache directory'} cannot be written: ${problem ?? 'it is read-only'}.`,
    fix: 'Name another directory with --cache-dir or LLAMA_HEADSTART_CACHE_DIR.',
  };
}

/** The disk of a directory; undefined if it cannot be determined. */
async function diskOf({ path, exists }: DirectoryState): Promise<StatsFs | undefined> {
  return path === null || !exists ? undefined : statfs(path).catch(() => undefined);
}

function fullDisk({ cacheDirectory: { path } }: Machine, disk: StatsFs | undefined): Slowness | undefined {
  if (disk === undefined) {
    return undefined;
  }
  const needed = Math.max(MIN_FREE_RATIO * disk.blocks * disk.bsize, MIN_FREE_BYTES);
  return disk.bavail * disk.bsize < needed
    ? {
        what: `New templates are not saved, because less than ${(needed / 1e9).toFixed(1)} GB are free on the disk of ${path}.`,
        fix: 'Free space, for example with `llama-headstart cache prune` and `llama-headstart models rm`.',
      }
    : undefined;
}

function networkDisk({ cacheDirectory: { path } }: Machine, disk: StatsFs | undefined): Slowness | undefined {
  return disk !== undefined && NETWORK_FILE_SYSTEMS.includes(disk.type)
    ? {
        what: `The cache directory ${path} is on a network file system, so starts from files are slow.`,
        fix: 'Name a directory on a disk of this machine with --cache-dir.',
      }
    : undefined;
}

/** Whether a server could listen on a port of this machine. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
