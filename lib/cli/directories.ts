// The directories that commands use if no option names one.
import { join } from 'node:path';
import { HeadstartError } from '../errors.js';
import { userCache } from '../native/places.js';
import type { Output } from './output.js';

/**
 * The directory of the cached templates. In contrast to programs, whose cache is in their working directory, commands
 * share one directory, so that they start warm in every directory.
 *
 * @throws HeadstartError `CONFIG_INVALID` if the user has no home directory.
 */
export function templatesDirectory(named: string | undefined): string {
  return named ?? join(userCache(), 'templates');
}

/**
 * Like {@link templatesDirectory}. If the user has no home directory, prints a note and returns null, because commands
 * also work without a cache.
 */
export function usableTemplatesDirectory(named: string | undefined, output: Output): string | null {
  try {
    return templatesDirectory(named);
  } catch (error) {
    if (!HeadstartError.isInstance(error, 'CONFIG_INVALID')) {
      throw error;
    }
    output.note(
      'Templates are not kept on disk, because there is no home directory. Name a directory with --cache-dir.',
    );
    return null;
  }
}
