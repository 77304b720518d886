import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join, posix, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { importsOf } from '../helpers/imports.js';

/**
 * The layers of lib/, highest first. A file imports only from its own layer and from layers below it. A name that ends
 * in a slash is a folder.
 */
const LAYERS = [
  'internal.ts',
  'index.ts',
  'cli/',
  'server/',
  'agent/',
  'session/',
  'chat/',
  'generate/',
  'tools/',
  'cache/',
  'prompt/',
  'engine/',
  'model/',
  'native/',
  'diagnostics/',
  // The kernel: small files that every file may use.
  'sampling-options.ts',
  'parse-options.ts',
  'option-types.ts',
  'options.ts',
  'schema-walk.ts',
  'json.ts',
  'files.ts',
  'logger.ts',
  'abort.ts',
  'tokens.ts',
  'remembered.ts',
  'errors.ts',
  'usage.ts',
];

/** The only barrels. The first three export the public names. internal.ts exports names for tests and benchmarks. */
const ENTRY_POINTS = ['index.ts', 'native/index.ts', 'server/index.ts', 'internal.ts'];

const lib = fileURLToPath(new URL('../../lib', import.meta.url));

/** A source file of lib. */
interface Source {
  /** The path relative to lib, with forward slashes. */
  name: string;
  /** The specifiers of its imports and re-exports, including imports of types and `import()`. */
  imports: string[];
  syntax: ts.SourceFile;
}

describe('the layering of lib', () => {
  const sources = readSources(lib);

  it('puts every file into a layer', () => {
    const unplaced = sources.filter((source) => layerOf(source.name) === -1);
    expect(
      unplaced.map(({ name }) => `lib/${name} is in no layer: move it into one, or add a layer to LAYERS in this test`),
    ).toEqual([]);
  });

  it('imports only from the same layer and from layers below', () => {
    expect(sources.flatMap(upwardImports)).toEqual([]);
  });

  it('writes relative imports with their .js suffix, to files that exist', () => {
    expect(sources.flatMap(wrongPaths)).toEqual([]);
  });

  it('has no default exports', () => {
    expect(
      sources.filter(hasDefaultExport).map(({ name }) => `lib/${name} has a default export: export it by its name`),
    ).toEqual([]);
  });

  it('has no barrels except the entry points', () => {
    expect(
      sources
        .filter((source) => !ENTRY_POINTS.includes(source.name) && isBarrel(source))
        .map(({ name }) => `lib/${name} only re-exports: import from the file that defines the name`),
    ).toEqual([]);
  });

  it('has no file with a vague name', () => {
    const vague = /^(utils?|helpers?|common|misc)\.ts$/;
    expect(
      sources
        .filter(({ name }) => vague.test(basename(name)))
        .map(({ name }) => `lib/${name}: move each function to the file that owns its idea`),
    ).toEqual([]);
  });
});

describe('the layering rules themselves', () => {
  const source = (name: string, text: string): Source => parse(name, text);

  it('refuse an import from a layer above, in every syntax', () => {
    for (const text of [
      "import { Cache } from '../cache/store.js';",
      "import type { Cache } from '../cache/store.js';",
      "export { Cache } from '../cache/store.js';",
      "const { Cache } = await import('../cache/store.js');",
      "type Cache = import('../cache/store.js').Cache;",
    ]) {
      expect(upwardImports(source('model/model.ts', text)), text).toHaveLength(1);
    }
  });

  it('allow imports from below, from the same layer, and from packages', () => {
    const text = "import '../errors.js'; import './source.js'; import 'node:fs';";
    expect(upwardImports(source('model/model.ts', text))).toEqual([]);
  });

  it('recognize default exports and barrels', () => {
    expect(hasDefaultExport(source('a.ts', 'export default class A {}'))).toBe(true);
    expect(hasDefaultExport(source('a.ts', 'const a = 1; export { a as default };'))).toBe(true);
    expect(hasDefaultExport(source('a.ts', 'export class A {}'))).toBe(false);
    expect(isBarrel(source('a.ts', "export { b } from './b.js';"))).toBe(true);
    expect(isBarrel(source('a.ts', "export * from './b.js'; export const c = 1;"))).toBe(true);
    expect(isBarrel(source('a.ts', "export type { B } from './b.js'; export const c = 1;"))).toBe(false);
  });
});

function readSources(directory: string): Source[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => parse(name.split(sep).join('/'), readFileSync(join(directory, name), 'utf8')));
}

function parse(name: string, text: string): Source {
  const syntax = ts.createSourceFile(name, text, ts.ScriptTarget.Latest, true);
  return { name, imports: importsOf(syntax), syntax };
}

/** Returns the index in LAYERS of a file's layer. 0 is the highest layer. -1 means that the file is in no layer. */
function layerOf(name: string): number {
  return LAYERS.findIndex((layer) => name === layer || (layer.endsWith('/') && name.startsWith(layer)));
}

/** Returns the .ts file that a relative import refers to, as a path relative to lib, or undefined for a package. */
function targetOf(source: Source, specifier: string): string | undefined {
  if (!specifier.startsWith('.')) return undefined;
  return posix.normalize(posix.join(posix.dirname(source.name), specifier)).replace(/\.js$/, '.ts');
}

function upwardImports(source: Source): string[] {
  const layer = layerOf(source.name);
  return source.imports.flatMap((specifier) => {
    const target = targetOf(source, specifier);
    if (target === undefined || layerOf(target) >= layer) return [];
    return [
      `lib/${source.name} imports '${specifier}', but the layer ${LAYERS[layerOf(target)]} is above ${LAYERS[layer]}: ` +
        'pass the value in from above, or move the shared code into a layer below',
    ];
  });
}

function wrongPaths(source: Source): string[] {
  return source.imports.flatMap((specifier) => {
    const target = targetOf(source, specifier);
    if (target === undefined) return [];
    const where = `lib/${source.name} imports '${specifier}'`;
    if (!specifier.endsWith('.js'))
      return [`${where}: write the suffix .js, because Node.js imports the compiled file`];
    if (target.startsWith('..')) return [`${where}: lib must not import from outside itself`];
    return existsSync(join(lib, target)) ? [] : [`${where}: lib/${target} does not exist`];
  });
}

function hasDefaultExport({ syntax }: Source): boolean {
  return syntax.statements.some((statement) => {
    if (ts.isExportAssignment(statement)) return true;
    if (ts.isExportDeclaration(statement) && statement.exportClause && ts.isNamedExports(statement.exportClause)) {
      return statement.exportClause.elements.some(({ name }) => name.text === 'default');
    }
    const modifiers = ts.canHaveModifiers(statement) ? ts.getModifiers(statement) : undefined;
    return modifiers?.some(({ kind }) => kind === ts.SyntaxKind.DefaultKeyword) ?? false;
  });
}

/** Returns whether a file is a barrel: a file with an `export *`, or a file that contains only re-exports. */
function isBarrel({ syntax }: Source): boolean {
  const reExports = syntax.statements.filter(
    (statement) => ts.isExportDeclaration(statement) && statement.moduleSpecifier,
  );
  const hasStar = reExports.some((statement) => ts.isExportDeclaration(statement) && !statement.exportClause);
  return hasStar || (reExports.length > 0 && reExports.length === syntax.statements.length);
}
