/** The newest version of each supported major version of Node.js, and of the majors after it. */
export const NODE_VERSIONS: readonly string[];
/** Downloads Node.js and returns the path of the program. The default platform is this machine's. */
export function ensureNode(version: string, platform?: string): Promise<string>;
