/** Returns the path of this checkout's prebuilt addon for this platform. Throws if there is none. */
export function prebuiltAddon(): string;
