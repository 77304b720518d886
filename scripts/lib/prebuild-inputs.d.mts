/** A hash of everything that a platform's prebuilt binaries are built from: 16 hexadecimal digits. */
export function prebuildInputs(platform: string, directory?: string): Promise<string>;
