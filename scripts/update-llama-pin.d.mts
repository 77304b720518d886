export function readBundle(npmPackage: string, bundlePath: string): Promise<{ tree: string; version: string }>;
export function requireVersion(tag: string, npmPackage: string, found: string): void;
