import { addon } from './addon.js';

/** The addon's build, and the machine. */
export interface SystemInfo {
  /** llama.cpp's version. */
  llamaVersion: string;
  /** CPU features and backends, as llama.cpp prints them. */
  features: string;
  /** Most sequences that one context can have. */
  maxSequences: number;
  supportsGpuOffload: boolean;
}

/** What the native addon was built with and runs on. */
export function systemInfo(): SystemInfo {
  const { llamaVersion, systemInfo: features, maxSequences, supportsGpuOffload } = addon();
  return { llamaVersion, features, maxSequences, supportsGpuOffload };
}
