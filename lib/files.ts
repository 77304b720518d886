// Makes directories with their parents, and replaces files atomically.
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HeadstartError } from './errors.js';

/**
 * Makes a directory with its parents. An existing directory is not changed.
 *
 * Node's recursive `mkdir` never ends if the system reports `ENOENT` for a directory whose parent exists. That happens
 * in a deleted working directory, under /proc and below a dangling link. This function tries only once to make each
 * missing parent, and then throws the system's error.
 *
 * @param mode permissions of new directories
 * @throws the system's error
 */
export async function makeDirectory(path: string, mode = 0o777): Promise<void> {
  const failure = await tryToMake(path, mode);
  const parent = dirname(path);
  if (failure?.code === 'ENOENT' && parent !== path) {
    await makeDirectory(parent, mode);
    const second = await tryToMake(path, mode);
    if (second !== undefined) {
      throw second;
    }
  } else if (failure !== undefined) {
    throw failure;
  }
}

/** @returns the error if `path` is not a directory afterwards */
async function tryToMake(path: string, mode: number): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(path, { mode });
    return undefined;
  } catch (error) {
    // For an existing directory, a read-only file system or a Windows drive reports an error other than EEXIST.
    const isDirectory = await stat(path).then(
      (stats) => stats.isDirectory(),
      () => false,
    );
    return isDirectory ? undefined : (error as NodeJS.ErrnoException);
  }
}

export interface ReplaceOptions {
  /** Path of the temporary file, in the same directory. @default a random name that ends in `.tmp` */
  temporary?: string;
  /**
   * Whether the file must survive a power loss. `false` skips the syncs, for a file that can be rebuilt. @default true
   */
  durable?: boolean;
}

/**
 * Replaces a file atomically: other processes see either the old file or the new one. A failure leaves the directory as
 * it was.
 *
 * @param write writes and syncs the temporary file
 * @returns the result of `write`
 * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
 */
export async function replaceFile<Result>(
  path: string,
  write: (temporary: string) => Promise<Result>,
  { temporary = temporaryName(path), durable }: ReplaceOptions = {},
): Promise<Result> {
  try {
    const result = await write(temporary);
    await moveIntoPlace(temporary, path, durable);
    return result;
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw writeFailure(error, path);
  }
}

/**
 * Replaces a file with a text. Works like {@link replaceFile}.
 *
 * @param mode permissions of the new file
 * @throws HeadstartError `DISK_FULL`, `WRITE_FAILED`.
 */
export function replaceText(path: string, text: string, options: ReplaceOptions = {}, mode = 0o600): Promise<void> {
  const write = async (temporary: string) => {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(text);
      if (options.durable !== false) {
        await file.sync();
      }
    } finally {
      await file.close();
    }
  };
  return replaceFile(path, write, options);
}

/**
 * Renames a complete and synced file within its directory.
 *
 * @param durable whether the rename must survive a power loss
 */
export async function moveIntoPlace(temporary: string, path: string, durable = true): Promise<void> {
  await rename(temporary, path);
  if (durable) {
    await syncDirectory(dirname(path));
  }
}

/**
 * Syncs a directory, so that a rename in it survives a power loss. Windows and some FUSE file systems cannot sync a
 * directory, and the error is ignored. Checksums detect a file that lost a part of its content.
 */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r').catch(() => undefined);
  await directory?.sync().catch(() => undefined);
  await directory?.close();
}

function temporaryName(path: string): string {
  return `${path}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
}

/** Converts a system error to a `HeadstartError` with the code `DISK_FULL` or `WRITE_FAILED`. */
export function writeFailure(error: unknown, path: string): HeadstartError {
  if (HeadstartError.isInstance(error)) {
    return error;
  }
  const code = (error as NodeJS.ErrnoException).code;
  const message = error instanceof Error ? error.message : String(error);
  return new HeadstartError(
    code === 'ENOSPC' || code === 'EDQUOT' ? 'DISK_FULL' : 'WRITE_FAILED',
    `Could not save ${path}: ${message}`,
    { cause: error },
  );
}
