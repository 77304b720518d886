export const NODE_VERSIONS: readonly string[];
/** The path of a Node.js program of that version, for this machine's platform or another. */
export function ensureNode(version: string, platform?: string): Promise<string>;
