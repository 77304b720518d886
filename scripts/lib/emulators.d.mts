/** The emulators' programs, and the folder that `qemu-aarch64 -L` takes. */
export function ensureEmulators(): Promise<{ x64: string; arm64: string; arm64Libraries: string }>;
