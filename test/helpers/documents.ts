// Lists the documents of this repository that contain programs, and reads documents.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The guide to the agent API. Its TypeScript blocks, in this order, are one program. */
export const AGENT_GUIDE = [
  'docs/guide/first-agent.md',
  'docs/guide/long-conversations.md',
  'docs/guide/structured-output.md',
  'docs/guide/tools.md',
  'docs/guide/mcp.md',
  'docs/guide/observability.md',
  'docs/guide/errors.md',
];

/** The documents of each program, in order. */
export const PROGRAMS: Record<string, readonly string[]> = {
  'README.md': ['README.md'],
  'the agent guide': AGENT_GUIDE,
  'docs/guide/caching.md': ['docs/guide/caching.md'],
  'docs/guide/low-level.md': ['docs/guide/low-level.md'],
};

/** Returns the text of a document. `path` is relative to the repository's root. */
export const readDocument = (path: string): string => readFileSync(`${root}${path}`, 'utf8');

/** Returns the TypeScript blocks of these documents, in order. */
export function programOf(paths: readonly string[]): string {
  const blocks = paths.flatMap((path) =>
    [...readDocument(path).matchAll(/```ts\n(.*?)```/gs)].map(([, block]) => block),
  );
  if (blocks.length === 0) {
    throw new Error(`Expected TypeScript blocks in ${paths.join(', ')}, found none`);
  }
  return blocks.join('\n');
}
