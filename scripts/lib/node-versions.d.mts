/** One release of each even major version of Node.js since 20. */
export const NODE_VERSIONS: readonly string[];
/** Downloads Node.js and returns the path of the program. The default platform is this machine's. */
export function ensureNode(version: string, platform?: string): Promise<string>;
