/** Makes a directory with its parents; one that exists is left as it is. */
export function makeDirectory(path: string): Promise<void>;
