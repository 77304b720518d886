/** Makes a directory and its missing parents. Does not change an existing directory. */
export function makeDirectory(path: string): Promise<void>;
