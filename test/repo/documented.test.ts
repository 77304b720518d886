// Checks that the guide and the options reference describe every member of the agent API's types. Also checks that the
// programs in documents compile, that the guide lists all error codes, and that every exported type has a doc comment.
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { namesIn, sectionOf, shapesIn, tableOf, usedOf } from '../helpers/document-sections.js';
import { PROGRAMS, programOf, readDocument } from '../helpers/documents.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** All pages of the guide, one after another. */
const guide = readdirSync(`${root}docs/guide`, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md'))
  .map((name) => readDocument(`docs/guide/${name}`))
  .join('\n');

const page = (name: string, heading: string) => sectionOf(readDocument(`docs/guide/${name}.md`), heading);

/** Returns a function that finds options: the rows of a section of the generated reference. */
const options = (heading: string) => (): string[] =>
  tableOf(sectionOf(readDocument('docs/reference/options.md'), heading), 'option').flatMap(([cell = '']) =>
    namesIn(cell),
  );

/** Returns a function that finds fields or methods: the rows of the guide's table whose header begins with `header`. */
const rows =
  (name: string, heading: string, ...header: string[]) =>
  (): string[] =>
    tableOf(page(name, heading), ...header).flatMap(([cell = '']) => namesIn(cell));

/** Returns a function that finds an object in inline code with exactly the type's fields, and returns these fields. */
const shape =
  (name: string, heading: string) =>
  (members: readonly string[]): string[] =>
    shapesIn(page(name, heading)).find((fields) => sameNames(fields, members)) ?? [];

/** Returns a function that finds methods and getters that code in the guide uses on a variable of this name. */
const usesOf = (variable: string) => (): string[] => usedOf(guide, variable);

const sameNames = (a: readonly string[], b: readonly string[]) => [...a].sort().join() === [...b].sort().join();

/** For each type: a function that finds its members in the documents. A mention in another place does not count. */
const DOCUMENTED: Record<string, (members: readonly string[]) => string[]> = {
  AgentServer: usesOf('agent'),
  AgentOptions: options('Agent'),
  ModelConfig: options('model'),
  CacheOptions: options('cache'),
  RetryConfig: options('retryConfig'),
  LoraConfig: options('loras'),
  LocalModelSource: options('A local model'),
  HuggingFaceModelSource: options('A model of the Hugging Face Hub'),
  UrlModelSource: options('A model at an address'),
  ModelProgress: shape('models', 'Downloads'),
  Session: usesOf('session'),
  SessionOptions: options('Session'),
  SendOptions: options('Turn'),
  SamplingOptions: options('sampling'),
  RepetitionGuardOptions: options('repetitionGuard'),
  ResponseFormat: shape('structured-output', 'Structured output'),
  CompactionOptions: options('compaction'),
  CompactionReport: shape('long-conversations', 'Compact'),
  CompletionOptions: options('Completion'),
  Completion: shape('first-agent', 'Complete text without a chat template'),
  Reply: shape('first-agent', 'Results and streams'),
  Usage: rows('first-agent', 'Results and streams', 'field of `usage`'),
  LikelyToken: shape('first-agent', 'Options of a turn'),
  TokenLogProbabilities: shape('first-agent', 'Options of a turn'),
  Tool: options('tools'),
  ToolContext: shape('tools', 'Tools'),
  ToolSession: shape('tools', 'Tools'),
  ToolCall: shape('first-agent', 'Messages'),
  ToolResult: shape('first-agent', 'Results and streams'),
  UserMessage: shape('first-agent', 'Messages'),
  AssistantMessage: shape('first-agent', 'Messages'),
  ToolMessage: shape('first-agent', 'Messages'),
  McpServers: usesOf('agent.mcp'),
  McpStdioServer: options('An MCP server that is a child process'),
  McpHttpServer: options('An MCP server at an address'),
  McpTool: shape('mcp', 'Tools and prompts'),
  McpPrompt: shape('mcp', 'Tools and prompts'),
  McpPromptMessage: shape('mcp', 'Tools and prompts'),
  AgentHealth: rows('observability', 'Health', 'field'),
  StartReport: rows('caching', 'What a start costs', 'field of `session.report`'),
  TemplateCache: rows('caching', 'Look into the cache', 'method'),
  TemplateCacheStats: rows('caching', 'Statistics and events', 'field'),
};

const ENTRIES = [
  `${root}lib/index.ts`,
  `${root}lib/native/index.ts`,
  `${root}lib/server/index.ts`,
  `${root}docs/reference/types.ts`,
];
/** Compiles the package's sources and the programs of the documents. */
function compile(): ts.Program {
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const host = ts.createCompilerHost(options);
  const written = new Map(Object.entries(PROGRAMS).map(([name, paths]) => [`${root}${name}.ts`, programOf(paths)]));
  const { getSourceFile, fileExists } = host;
  host.fileExists = (path) => written.has(path) || fileExists(path);
  host.getSourceFile = (path, ...more) => {
    const text = written.get(path);
    return text === undefined
      ? getSourceFile(path, ...more)
      : ts.createSourceFile(path, text, ts.ScriptTarget.ES2023, true);
  };
  return ts.createProgram([...ENTRIES, ...written.keys()], options, host);
}

const program = compile();
const checker = program.getTypeChecker();

/** The exports of the entry points, and the other types of the API reference. */
const symbols = ENTRIES.flatMap((entry) => {
  const module = checker.getSymbolAtLocation(program.getSourceFile(entry) as ts.SourceFile) as ts.Symbol;
  return checker
    .getExportsOfModule(module)
    .map((each) => (each.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(each) : each));
});

function exported(name: string): ts.Symbol {
  return symbols.find((each) => each.name === name) as ts.Symbol;
}

/** Returns the names of a type's members, except internal members and members whose name is a symbol. */
function membersOf(name: string): string[] {
  return checker
    .getDeclaredTypeOfSymbol(exported(name))
    .getProperties()
    .filter((each) => !each.getJsDocTags().some((tag) => tag.name === 'internal'))
    .map((each) => each.name)
    .filter((each) => /^[a-z]\w*$/i.test(each));
}

/** Returns the fields of each part of a stream, without `type`. */
function fieldsOfParts(): Map<string, string[]> {
  const { types } = checker.getDeclaredTypeOfSymbol(exported('StreamPart')) as ts.UnionType;
  return new Map(
    types.map((part) => {
      const [tag] = part.getProperties().filter(({ name }) => name === 'type');
      const { value } = checker.getTypeOfSymbol(tag as ts.Symbol) as ts.StringLiteralType;
      return [value, part.getProperties().flatMap(({ name }) => (name === 'type' ? [] : [name]))];
    }),
  );
}

describe('the documents', () => {
  it.each(Object.entries(DOCUMENTED))('name every member of %s', (type, documented) => {
    const members = membersOf(type);
    expect(members.length).toBeGreaterThan(0);
    const named = new Set(documented(members));
    expect(members.filter((member) => !named.has(member))).toEqual([]);
  });

  it('list every part of a stream with its fields', () => {
    const table = tableOf(page('first-agent', 'Results and streams'), '`type`', 'fields');
    const parts = table.map(([type = '', fields = '']) => [type.replaceAll('`', ''), namesIn(fields).sort()] as const);
    const expected = [...fieldsOfParts()].map(([type, fields]) => [type, fields.sort()] as const);
    expect(Object.fromEntries(parts)).toEqual(Object.fromEntries(expected));
  });
});

describe('a member counts as documented', () => {
  const text = [
    '# Title',
    'Prose about path and `{ inTitle }`.',
    '## Part',
    'Here is a path, `path`, `{ type, path? }` and `{ kind, of: { path, size } }`.',
    '',
    '| option | type |',
    '| --- | --- |',
    '| `type` | `path` |',
    '',
    '| other | type |',
    '| --- | --- |',
    '| `size` | number |',
    '## Code',
    '```ts',
    '# no heading',
    'await agent.close(other.agent.flush);',
    '```',
  ].join('\n');
  const part = sectionOf(text, 'Part');

  it('only in its section', () => {
    expect(part).toContain('Here is a path');
    expect(part).not.toMatch(/inTitle|agent/);
    expect(sectionOf(text, 'Code')).toContain('agent.close');
    expect(() => sectionOf(text, 'Parts')).toThrow("Expected a section 'Parts'");
  });

  it('only in the first cell of a row of its table', () => {
    expect(tableOf(part, 'option').flatMap(([cell = '']) => namesIn(cell))).toEqual(['type']);
    expect(tableOf(part, 'other').flatMap(([cell = '']) => namesIn(cell))).toEqual(['size']);
    expect(() => tableOf(part, 'method')).toThrow('Expected a table');
  });

  it('only in an object that has exactly the fields of its type', () => {
    expect(shapesIn(part)).toEqual([
      ['type', 'path'],
      ['path', 'size'],
      ['kind', 'of'],
    ]);
  });

  it('only if code uses it on a variable of its type', () => {
    expect(usedOf(text, 'agent')).toEqual(['close']);
  });
});

describe('the program', () => {
  it.each(Object.keys(PROGRAMS))('in %s compiles', (name) => {
    const diagnostics = ts.getPreEmitDiagnostics(program, program.getSourceFile(`${root}${name}.ts`));
    expect(diagnostics.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
  });
});

describe('error codes', () => {
  it('are all listed in the guide', () => {
    const { types } = checker.getDeclaredTypeOfSymbol(exported('ErrorCode')) as ts.UnionType;
    const codes = types.map((each) => (each as ts.StringLiteralType).value);
    expect(codes).toContain('CONFIG_INVALID');
    const listed = new Set([...rows('errors', 'Codes', 'code')(), ...rows('low-level', 'Codes', 'code')()]);
    expect(codes.filter((code) => !listed.has(code))).toEqual([]);
  });
});

describe('the API reference', () => {
  it('has a doc comment for each type', () => {
    const undocumented = symbols.filter((each) => each.getDocumentationComment(checker).length === 0);
    expect(undocumented.map(({ name }) => name)).toEqual([]);
  });
});
