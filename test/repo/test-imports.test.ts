// Checks that tests, benchmarks, scripts and examples import only the package's entry points. Files in lib/ can then
// move without a change of a test.
import { readdirSync, readFileSync } from 'node:fs';
import { posix, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { importsOf } from '../helpers/imports.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

const FOLDERS = ['test', 'bench', 'scripts', 'examples'];

interface Source {
  /** The path relative to the repository's root, with forward slashes. */
  name: string;
  syntax: ts.SourceFile;
}

const parse = (name: string, text: string): Source => ({
  name,
  syntax: ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true),
});

const read = (name: string): Source => parse(name, readFileSync(`${root}${name}`, 'utf8'));

const sourcesIn = (folder: string): Source[] =>
  readdirSync(`${root}${folder}`, { recursive: true, encoding: 'utf8' })
    .map((name) => `${folder}/${name.split(sep).join('/')}`)
    .filter((name) => /\.m?ts$|\.mjs$/.test(name) && !name.includes('/node_modules/'))
    .map(read);

/** Returns a message for each import that names a file of lib/ or dist/ instead of an entry point. */
function pathsIntoPackage({ name, syntax }: Source): string[] {
  return importsOf(syntax)
    .filter((specifier) => specifier.startsWith('.'))
    .filter((specifier) => /^(lib|dist)\//.test(posix.join(posix.dirname(name), specifier)))
    .map(
      (specifier) =>
        `${name} imports '${specifier}': import from 'llama-headstart', 'llama-headstart/native' or 'llama-headstart/internal', ` +
        'and export the name from lib/internal.ts if no entry point has it',
    );
}

/** Returns the names in the braces of a file's imports and re-exports from the modules that `isWanted` selects. */
function namesOf({ syntax }: Source, isWanted: (specifier: string) => boolean): string[] {
  const names: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isImportSpecifier(node) || ts.isExportSpecifier(node)) {
      const declaration = ts.isImportSpecifier(node) ? node.parent.parent.parent : node.parent.parent;
      const { moduleSpecifier } = declaration as ts.ImportDeclaration | ts.ExportDeclaration;
      if (moduleSpecifier && ts.isStringLiteral(moduleSpecifier) && isWanted(moduleSpecifier.text)) {
        names.push((node.propertyName ?? node.name).text);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(syntax);
  return names;
}

/** Returns the names that `const { name } = await import(...)` takes from a module. */
const loadedNames = ({ syntax }: Source, module: string): string[] =>
  [...syntax.text.matchAll(/\{([^{}]*)\} = await import\('([^']+)'\)/g)]
    .filter(([, , specifier]) => specifier === module)
    .flatMap(([, names]) => (names as string).split(',').map((name) => name.split(':')[0]?.trim() ?? ''));

describe('tests, benchmarks, scripts and examples', () => {
  const sources = FOLDERS.flatMap(sourcesIn);

  it('import only the entry points of the package', () => {
    expect(sources.flatMap(pathsIntoPackage)).toEqual([]);
  });

  it('use every name of the internal entry point', () => {
    const internal = 'llama-headstart/internal';
    const used = new Set(
      sources.flatMap((source) => [
        ...namesOf(source, (module) => module === internal),
        ...loadedNames(source, internal),
      ]),
    );
    const exported = namesOf(read('lib/internal.ts'), () => true);
    expect(exported.length).toBeGreaterThan(0);
    expect(exported.filter((name) => !used.has(name))).toEqual([]);
  });
});

describe('the rule about imports', () => {
  it.each([
    "import { HeadstartError } from '../../lib/errors.js';",
    "import type { ErrorCode } from '../../dist/errors.js';",
    "export { HeadstartError } from '../../lib/errors.js';",
    "const { HeadstartError } = await import('../../lib/errors.js');",
    "type Code = import('../../lib/errors.js').ErrorCode;",
    "vi.mock('../../lib/errors.js');",
    "await vi.importActual('../../lib/errors.js');",
  ])('refuses %s', (text) => {
    expect(pathsIntoPackage(parse('test/unit/example.test.ts', text))).toHaveLength(1);
  });

  it.each([
    "import { AgentServer } from 'llama-headstart';",
    "import { run } from '../../bin/lib/run.mjs';",
    "import { run } from '../lib/run.js';",
  ])('accepts %s', (text) => {
    expect(pathsIntoPackage(parse('test/unit/example.test.ts', text))).toEqual([]);
  });
});
