import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { HeadstartError } from '../errors.js';

/** Where a model comes from. */
export interface LocalModelSource {
  type: 'local';
  /** A GGUF file; of a split model the first part. Relative paths are relative to the working directory. */
  path: string;
}

export type ModelSource = LocalModelSource;

/**
 * The model's file on this machine.
 *
 * @throws HeadstartError `MODEL_NOT_FOUND`, `CONFIG_INVALID`.
 */
export async function resolveModelSource(source: ModelSource): Promise<string> {
  const path = resolve(source.path);
  const facts = await stat(path).catch((cause: Error) => {
    throw new HeadstartError('MODEL_NOT_FOUND', `Expected a GGUF file at "${path}": ${cause.message}`, { cause });
  });
  if (!facts.isFile()) {
    throw new HeadstartError('MODEL_NOT_FOUND', `Expected a GGUF file at "${path}", found a directory or device`);
  }
  return path;
}
