export function releaseProblems(release: {
  tag: string;
  version: string;
  changelog: string;
  repository: { url?: string } | undefined;
  origin: string | undefined;
  packages?: { name: string; version: string }[];
}): string[];
