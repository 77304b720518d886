/** Returns this package's directory in the user's cache directory. Throws if there is no home directory. */
export function userCache(): string;
