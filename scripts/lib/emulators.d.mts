/**
 * The paths of the emulators, and the directory for `qemu-aarch64 -L`. Throws an error that says why there is no
 * emulator.
 */
export function ensureEmulators(): Promise<{ x64: string; arm64: string; arm64Libraries: string }>;
