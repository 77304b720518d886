// Checks the links in Markdown files and the names of documents in source files. Each file and heading must exist.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((path) => path !== '' && !path.startsWith('vendor/') && existsSync(join(root, path)));
const documents = files.filter((path) => path.endsWith('.md'));
const sources = files.filter((path) => /(\.(ts|mjs|js|cpp|h|ya?ml|json)|CMakeLists\.txt)$/.test(path));

const read = (path: string) => readFileSync(join(root, path), 'utf8');
const withoutCodeBlocks = (text: string) => text.replace(/^```[\s\S]*?^```/gm, '');

/** Returns the headings of a document and the anchors that GitHub derives from them. */
function headingsOf(path: string): { titles: string[]; anchors: string[] } {
  const titles = [...withoutCodeBlocks(read(path)).matchAll(/^#+ +(.*)$/gm)].map(([, title = '']) => title);
  const anchors = titles.map((title) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}_ -]/gu, '')
      .replaceAll(' ', '-'),
  );
  return { titles, anchors };
}

/** Returns the reason why a link of a document is dead, or undefined if the link works. */
function problemOf(document: string, link: string): string | undefined {
  const [path = '', anchor] = link.split('#');
  const target = path === '' ? document : relative(root, join(root, dirname(document), path));
  if (target.startsWith('..') || !existsSync(join(root, target))) {
    return `${link}: no such file`;
  }
  return anchor === undefined || headingsOf(target).anchors.includes(anchor) ? undefined : `${link}: no such heading`;
}

/**
 * Returns the dead references to documents in a source file. A reference may contain a heading: docs/guide/tools.md,
 * "Names".
 */
function problemsOfMentions(source: string): string[] {
  const mentions = [...read(source).matchAll(/(?<![\w/.-])(docs\/[\w/-]+\.md)(?:, "([^"\n]+)")?/g)];
  return mentions.flatMap(([, path = '', title]) => {
    if (!existsSync(join(root, path))) {
      return [`${path}: no such file`];
    }
    return title === undefined || headingsOf(path).titles.includes(title) ? [] : [`${path}: no heading "${title}"`];
  });
}

describe('references to documents', () => {
  it.each(documents)('lead to existing files and headings, in all relative links of %s', (document) => {
    const links = [...withoutCodeBlocks(read(document)).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = '']) => link);
    const problems = links.filter((link) => !/^[a-z]+:/.test(link)).map((link) => problemOf(document, link));
    expect(problems.filter((problem) => problem !== undefined)).toEqual([]);
  });

  it('lead to existing files and headings, in all comments and messages of source files', () => {
    const problems = sources.flatMap((source) => problemsOfMentions(source).map((problem) => `${source}: ${problem}`));
    expect(problems).toEqual([]);
  });

  it('are reported if the file or heading is missing', () => {
    expect(problemOf('docs/scope.md', 'nothing.md')).toMatch(/no such file/);
    expect(problemOf('docs/scope.md', 'guide/tools.md#nothing')).toMatch(/no such heading/);
    expect(problemOf('docs/scope.md', 'guide/tools.md#names')).toBeUndefined();
    expect(documents).toEqual(expect.arrayContaining(['README.md', 'docs/guide/tools.md']));
    expect(sources.filter((source) => /docs\/[\w/-]+\.md/.test(read(source))).length).toBeGreaterThan(3);
  });
});
