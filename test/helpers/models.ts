// The paths of the models that tests use. `npm test` prepares the models and sets the environment variables.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export type MicroModelName =
  | 'dense'
  | 'dense-other'
  | 'dense-quantised'
  | 'wide-q4_k'
  | 'wide-iq2_xxs'
  | 'no-tokenizer'
  | 'long-rope'
  | 'sliding-window'
  | 'recurrent'
  | 'hybrid';

/** Returns the path of a micro model (test/fixtures/micro-models) in the directory LLAMA_HEADSTART_MICRO_MODELS. */
export function microModel(name: MicroModelName): string {
  const directory = process.env.LLAMA_HEADSTART_MICRO_MODELS;
  const remedy =
    'Run the tests with `npm test`, or generate the models with `node test/fixtures/micro-models/cli.mjs DIR`.';
  if (!directory) {
    throw new Error(`LLAMA_HEADSTART_MICRO_MODELS is not set. ${remedy}`);
  }
  const pattern = new RegExp(`^micro-${name}-v\\d+\\.gguf$`);
  const files = existsSync(directory) ? readdirSync(directory).filter((entry) => pattern.test(entry)) : [];
  const newest = files.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  if (newest === undefined) {
    throw new Error(`No micro model "${name}" in ${directory} (LLAMA_HEADSTART_MICRO_MODELS). ${remedy}`);
  }
  return join(directory, newest);
}

/**
 * Returns the path of the real model from the environment variable LLAMA_HEADSTART_TEST_MODEL. Returns undefined if the
 * variable is not set. Tests of a real model are then skipped.
 */
export function testModel(): string | undefined {
  const path = process.env.LLAMA_HEADSTART_TEST_MODEL;
  if (!path) {
    return undefined;
  }
  if (!existsSync(path)) {
    throw new Error(`Expected LLAMA_HEADSTART_TEST_MODEL to name a file, but "${path}" does not exist.`);
  }
  return path;
}
