// Directories with their parents, and files that are replaced atomically.
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HeadstartError } from './errors.js';

/**
 * Makes a directory with its parents. An existing directory is not changed. Node's recursive `mkdir` never ends if the system reports
 * `ENOENT` although the parent exists: in a deleted working directory, under /proc, below a dangling link. This function tries to make
 * each missing parent once and throws what the system then reports.
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

/** @returns the error if `path` is no directory now */
async function tryToMake(path: string, mode: number): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(path, { mode });
    return undefined;
  } catch (error) {
    // A read-only file system or a Windows drive reports other errors than EEXIST for an existing directory.
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
  /** Whether the file must survive a power loss. `false` leaves out the syncs, for files that can be rebuilt. @default true */
  durable?: boolean;
}

/**
 * Replaces a file atomically: other processes see the old file or the new one, and a failure leaves the directory as it was.
 *
 * @param write writes and syncs the temporary file, which is then renamed
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
 * Replaces a file with a text, as {@link replaceFile} does.
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
 * Not every file system can sync a directory (Windows, some with FUSE). The file is there anyway; a power loss may undo the rename, and
 * checksums detect a file that lost a part.
 */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r').catch(() => undefined);
  await directory?.sync().catch(() => undefined);
  await directory?.close();
}

function temporaryName(path: string): string {
  return `${path}.${process.pid}.${randomBytes(6).toString('hex')}.tmp`;
}

/** Turns an error of the system into a coded one: `DISK_FULL` or `WRITE_FAILED`. */
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
