// Loads modules of the folder bin/lib. Scripts of the repository use these modules before lib is compiled, so they are
// JavaScript. This file declares the parts that the command line uses.
import type { GpuKind } from '../native/places.js';

/** The options of `buildNative` that `llama-headstart build` uses. */
export interface NativeBuild {
  accelerator?: GpuKind;
  portable: boolean;
  debug: boolean;
  clean: boolean;
  jobs?: number;
  definitions?: readonly string[];
  /** The directory of the build. */
  directory: string;
  /** The directory for the addon. */
  output: string;
  /** Run CMake directly even if cmake-js is installed. */
  plain: boolean;
  onProgress(state: StepState): void;
}

export interface StepState {
  /** 0 to 1; absent if unknown. */
  fraction?: number;
  /** A short text such as `58/131`. */
  detail?: string;
}

/** A running step: a line on standard error, which shows the progress on a terminal. */
export interface Step {
  update(state: StepState): void;
  /** Writes a line that stays on the terminal. */
  note(text: string): void;
  done(note?: string): void;
  fail(): void;
}

interface PackageScripts {
  'build-native.mjs': { buildNative(options: NativeBuild): Promise<{ path: string; compiled: number }> };
  'build-tools.mjs': {
    checkTools(needs: { accelerator?: GpuKind; compiler: boolean }): Promise<void>;
    toolProblems(needs: { compiler: boolean }): Promise<string[]>;
    toolVersions(): Promise<Record<string, string | null>>;
  };
  'progress.mjs': {
    Step: new (name: string, options: { quiet?: boolean; stream?: NodeJS.WritableStream; live?: boolean }) => Step;
  };
  'run.mjs': {
    run(
      command: string,
      args: readonly string[],
      options?: { env?: NodeJS.ProcessEnv },
    ): Promise<{ code: number; signal: NodeJS.Signals | null; stdout: string; output: string }>;
  };
}

/** Loads a module of bin/lib, which is beside dist in the package, and beside lib in the repository. */
export async function packageScript<Name extends keyof PackageScripts>(name: Name): Promise<PackageScripts[Name]> {
  return import(new URL(`../../bin/lib/${name}`, import.meta.url).href);
}
