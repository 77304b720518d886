/** Downloads an npm package and reads the hash and the version of the llama.cpp tree in its git bundle. */
export function readBundle(npmPackage: string, bundlePath: string): Promise<{ tree: string; version: string }>;
/** Throws if `tag` is a version and the tree in the package has another version. */
export function requireVersion(tag: string, npmPackage: string, treeVersion: string): void;
