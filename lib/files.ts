// Files and directories: what Node's own calls get wrong.
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Makes a directory with its parents; one that exists is left as it is. Node's recursive `mkdir` never ends if the system reports
 * `ENOENT` although the parent exists: in a working directory that was deleted, under /proc, below a dangling link. Here each
 * missing parent is made once, and what the system then reports is thrown.
 *
 * @param mode of the directories that are made
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

/** @returns why there is no directory at `path` now */
async function tryToMake(path: string, mode: number): Promise<NodeJS.ErrnoException | undefined> {
  try {
    await mkdir(path, { mode });
    return undefined;
  } catch (error) {
    // A read-only file system or a Windows drive reports other errors than EEXIST for a directory that exists.
    const isDirectory = await stat(path).then(
      (facts) => facts.isDirectory(),
      () => false,
    );
    return isDirectory ? undefined : (error as NodeJS.ErrnoException);
  }
}
