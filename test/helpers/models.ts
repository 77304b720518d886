// Where the models of the tests are. `npm test` prepares them and sets the variables.
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

/** The path of a micro model (test/fixtures/micro-models), in the directory that LLAMA_HEADSTART_MICRO_MODELS names. */
export function microModel(name: MicroModelName): string {
  const directory = process.env.LLAMA_HEADSTART_MICRO_MODELS;
  const remedy =
    'run the tests with `npm test`, or write the models with `node test/fixtures/micro-models/cli.mjs DIR` first';
  if (!directory) {
    throw new Error(`LLAMA_HEADSTART_MICRO_MODELS is not set: ${remedy}`);
  }
  const named = new RegExp(`^micro-${name}-v\\d+\\.gguf$`);
  const file = existsSync(directory) ? readdirSync(directory).filter((entry) => named.test(entry)) : [];
  const newest = file.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1);
  if (newest === undefined) {
    throw new Error(`No micro model "${name}" in ${directory} (LLAMA_HEADSTART_MICRO_MODELS): ${remedy}`);
  }
  return join(directory, newest);
}

/** The path of a real model, where one is available: LLAMA_HEADSTART_TEST_MODEL. Tests without one skip. */
export function testModel(): string | undefined {
  const path = process.env.LLAMA_HEADSTART_TEST_MODEL;
  if (!path) {
    return undefined;
  }
  if (!existsSync(path)) {
    throw new Error(`LLAMA_HEADSTART_TEST_MODEL names "${path}", which is not there`);
  }
  return path;
}
