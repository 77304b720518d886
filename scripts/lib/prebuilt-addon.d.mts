/** The path of this checkout's prebuilt addon, as the loader would find it in an installed package. */
export function prebuiltAddon(): string;
