// Starts a Hub on this machine with real model files, and downloads from this Hub.
import { readdir, readFile } from 'node:fs/promises';
import { type ModelSource, resolveModel } from 'llama-headstart';
import type { ResolveModelOptions } from 'llama-headstart/internal';
import { afterEach, beforeEach, vi } from 'vitest';
import { temporaryDirectory } from './agents.js';
import { FakeHub, sha256 } from './hub.js';
import { microModel } from './models.js';

export const REPO = 'makers/tiny-GGUF';
export const retryConfig = { initialDelayMs: 1, maxDelayMs: 5 };
/**
 * Retries for servers that stall on purpose. On a slow machine, a download from any other server may wait longer than
 * this limit.
 */
export const shortStall = { ...retryConfig, stallTimeoutMs: 300 };

/** The contents of two different model files. */
export const model = await readFile(microModel('dense'));
export const other = await readFile(microModel('dense-other'));

/** Runs each test of a file without settings of the Hub in the environment. */
export function useEmptyEnvironment(): void {
  beforeEach(() => {
    for (const name of ['HF_TOKEN', 'HF_ENDPOINT', 'HF_HUB_OFFLINE', 'HF_TOKEN_PATH', 'LLAMA_HEADSTART_MODELS_DIR']) {
      vi.stubEnv(name, '');
    }
    vi.stubEnv('HF_HOME', '/nowhere');
  });
  afterEach(() => vi.unstubAllEnvs());
}

export type Download = Awaited<ReturnType<typeof startHub>>['download'];

/** Starts a Hub with one repository. The returned `download` downloads a model into `directory`. */
export async function startHub(files: Record<string, Buffer> = { 'tiny.Q8_0.gguf': model }) {
  const hub = await FakeHub.start();
  hub.add(REPO, files);
  const directory = await temporaryDirectory();
  const log: string[] = [];
  const download = (source: Partial<ModelSource> = {}, options: ResolveModelOptions = {}) =>
    resolveModel({ type: 'huggingface', repo: REPO, endpoint: hub.endpoint, ...source } as ModelSource, {
      modelsDir: directory,
      retryConfig,
      logger: (_, line) => log.push(line),
      ...options,
    });
  return { hub, directory, log, download };
}

/** The hash of a file. Tests compare hashes, because vitest takes seconds to compare large buffers. */
export const hashOf = async (path: string) => sha256(await readFile(path));

export const filesBelow = async (directory: string) =>
  (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter((each) => each.isFile())
    .map(({ name }) => name)
    .sort();
