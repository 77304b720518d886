export function includedHeaders(text: string): string[];
export function affectedSources(changed: readonly string[], includes: ReadonlyMap<string, readonly string[]>): string[];
