export interface OptionsGroup {
  title: string;
  shape: string;
  schema: object;
  about: string;
}
export function optionsReference(groups: readonly OptionsGroup[], expectedBy: (schema: never) => string): string;
