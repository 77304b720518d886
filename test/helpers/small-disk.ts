import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { onTestFinished } from 'vitest';

/** Mounts an empty file system of `size` at `path` until the test ends. Returns undefined if the user may not mount. */
export function smallDisk(path: string, size: string): string | undefined {
  mkdirSync(path, { recursive: true });
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  onTestFinished(() => {
    execFileSync('umount', [path], { stdio: 'ignore' });
  });
  return path;
}

/** Makes a mounted file system read-only, even for root. */
export function makeReadOnly(path: string): void {
  execFileSync('mount', ['-o', 'remount,ro', path], { stdio: 'ignore' });
}
