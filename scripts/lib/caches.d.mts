/** This package's directory in the user's cache. */
export function userCache(): string;
