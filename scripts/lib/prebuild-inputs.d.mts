/** What a platform's prebuilt binary is made from in this checkout, as one hash of 16 hexadecimal digits. */
export function prebuildInputs(platform: string, directory?: string): Promise<string>;
