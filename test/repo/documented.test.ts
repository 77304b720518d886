// The guide or the option reference names every option and every method of the agent API. Programs in documents compile, the
// guide lists all error codes, and every exported type has a doc comment.
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { PROGRAMS, programOf, readDocument } from '../helpers/documents.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The types of the agent API that users write, call or read. */
const TYPES = [
  'AgentServer',
  'AgentOptions',
  'ModelConfig',
  'CacheOptions',
  'RetryConfig',
  'LoraConfig',
  'LocalModelSource',
  'HuggingFaceModelSource',
  'UrlModelSource',
  'ModelProgress',
  'Session',
  'SessionOptions',
  'SendOptions',
  'SamplingOptions',
  'RepetitionGuardOptions',
  'ResponseFormat',
  'CompactionOptions',
  'CompactionReport',
  'CompletionOptions',
  'Completion',
  'Reply',
  'FinishPart',
  'Usage',
  'LikelyToken',
  'TokenLogProbabilities',
  'Tool',
  'ToolContext',
  'ToolSession',
  'ToolCall',
  'ToolResult',
  'UserMessage',
  'AssistantMessage',
  'ToolMessage',
  'McpServers',
  'McpStdioServer',
  'McpHttpServer',
  'McpTool',
  'McpPrompt',
  'McpPromptMessage',
  'AgentHealth',
  'TemplateCache',
] as const;

const ENTRIES = [`${root}lib/index.ts`, `${root}lib/native/index.ts`, `${root}docs/reference/types.ts`];
/** The package's sources, and the documents' programs beside them. */
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

/** What a program gets from the package's entry points. */
const symbols = ENTRIES.flatMap((entry) => {
  const module = checker.getSymbolAtLocation(program.getSourceFile(entry) as ts.SourceFile) as ts.Symbol;
  return checker
    .getExportsOfModule(module)
    .map((each) => (each.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(each) : each));
});

function exported(name: string): ts.Symbol {
  return symbols.find((each) => each.name === name) as ts.Symbol;
}

/** Names of a type's members, but for internal ones and those that a language feature has. */
function membersOf(name: string): string[] {
  return checker
    .getDeclaredTypeOfSymbol(exported(name))
    .getProperties()
    .filter((each) => !each.getJsDocTags().some((tag) => tag.name === 'internal'))
    .map((each) => each.name)
    .filter((each) => /^[a-z]\w*$/i.test(each));
}

const codeOf = (text: string) => (text.match(/```[\s\S]*?```|`[^`\n]+`/g) ?? []).join('\n');
const codeOfGuide = readdirSync(`${root}docs/guide`)
  .map((name) => codeOf(readDocument(`docs/guide/${name}`)))
  .join('\n');
const codeOfReference = codeOf(readDocument('docs/reference/options.md'));

/** The names that do not occur as a whole word in the code. */
const missingFrom = (code: string, names: readonly string[]) =>
  names.filter((name) => !new RegExp(`\\b${name}\\b`).test(code));

describe('the documents', () => {
  it.each(TYPES)('name every member of %s', (type) => {
    const names = membersOf(type);
    expect(names.length).toBeGreaterThan(0);
    expect(missingFrom(`${codeOfGuide}\n${codeOfReference}`, names)).toEqual([]);
  });
});

describe('the program', () => {
  it.each(Object.keys(PROGRAMS))('in %s compiles', (name) => {
    const found = ts.getPreEmitDiagnostics(program, program.getSourceFile(`${root}${name}.ts`));
    expect(found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
  });
});

describe('error codes', () => {
  it('are all listed in the guide', () => {
    const { types } = checker.getDeclaredTypeOfSymbol(exported('ErrorCode')) as ts.UnionType;
    const codes = types.map((each) => (each as ts.StringLiteralType).value);
    expect(codes).toContain('CONFIG_INVALID');
    expect(missingFrom(codeOfGuide, codes)).toEqual([]);
  });
});

describe('the API reference', () => {
  it('says of each type what it is: nothing is taken from one that it extends', () => {
    const silent = symbols.filter((each) => each.getDocumentationComment(checker).length === 0);
    expect(silent.map(({ name }) => name)).toEqual([]);
  });
});
