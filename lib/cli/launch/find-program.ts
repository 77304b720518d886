// Finds a program as a shell does.
import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/**
 * Looks up a program in the directories of `PATH`.
 *
 * @returns the path of the program, or undefined if there is none
 */
export async function findProgram(name: string, environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  const directories = (pathOf(environment) ?? '').split(delimiter).filter((directory) => directory !== '');
  const suffixes = process.platform === 'win32' ? (environment.PATHEXT ?? '.EXE;.CMD;.BAT').split(';') : [''];
  for (const directory of directories) {
    for (const suffix of suffixes) {
      const path = join(directory, name + suffix);
      if (await isProgram(path)) {
        return path;
      }
    }
  }
  return undefined;
}

/** Windows ignores the case of the names of variables, but a copy of `process.env` does not. */
function pathOf(environment: NodeJS.ProcessEnv): string | undefined {
  const name = Object.keys(environment).find((each) => each.toUpperCase() === 'PATH');
  return name === undefined ? undefined : environment[name];
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}
