/** Returns a hash (16 hexadecimal digits) of everything that a platform's prebuilt binaries are built from. */
export function prebuildInputs(platform: string, directory?: string): Promise<string>;
