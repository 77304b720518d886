export function httpReference(document: object): string;
