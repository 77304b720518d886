export function cliReference(
  groups: readonly { title: string; commands: readonly object[] }[],
  globals: object,
  exitCodes: Readonly<Record<number, string>>,
  words: { flagOf: (name: string) => string; aboutOf: (option: never) => string },
): string;
