/** This package's directory in the user's cache. Throws if there is no home directory. */
export function userCache(): string;
