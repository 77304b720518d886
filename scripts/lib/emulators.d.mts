/**
 * Downloads the emulators. Returns their paths, and the directory for `qemu-aarch64 -L`. If this machine cannot
 * download or run them, throws an error with the reason.
 */
export function ensureEmulators(): Promise<{ x64: string; arm64: string; arm64Libraries: string }>;
