// docs/agent.md tells of every option and every method that users of the agent API have; what is the template cache's may be
// in docs/cache.md. Programs in documents compile, all codes of errors are told, and the API
// reference says of each type what it is.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

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
  'AgentTemplateCache',
] as const;

const ENTRIES = [`${root}lib/index.ts`, `${root}lib/native/index.ts`];
/** Those with programs in them: the blocks of one are one program. */
const DOCUMENTS = ['README.md', 'docs/agent.md', 'docs/cache.md', 'docs/low-level.md'];

const read = (name: string) => readFileSync(`${root}${name}`, 'utf8');
const programIn = (document: string) =>
  [...read(document).matchAll(/```ts\n(.*?)```/gs)].map(([, block]) => block).join('\n');

/** The package's sources, and the documents' programs beside them. */
function compile(): ts.Program {
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const host = ts.createCompilerHost(options);
  const written = new Map(DOCUMENTS.map((name) => [`${root}${name}.ts`, programIn(name)]));
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
const code = codeOf(read('docs/agent.md'));
const ofCache = codeOf(read('docs/cache.md'));

describe('docs/agent.md', () => {
  it.each(TYPES)('names all of %s', (type) => {
    const known = ['CacheOptions', 'AgentTemplateCache'].includes(type) ? `${code}\n${ofCache}` : code;
    const names = membersOf(type);
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(known))).toEqual([]);
  });
});

describe('the program', () => {
  it.each(DOCUMENTS)('in %s is right in its types', (name) => {
    const found = ts.getPreEmitDiagnostics(program, program.getSourceFile(`${root}${name}.ts`));
    expect(found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))).toEqual([]);
  });
});

describe('the codes of errors', () => {
  it('stand all in docs/agent.md or docs/low-level.md', () => {
    const { types } = checker.getDeclaredTypeOfSymbol(exported('ErrorCode')) as ts.UnionType;
    const codes = types.map((each) => (each as ts.StringLiteralType).value);
    expect(codes).toContain('CONFIG_INVALID');
    const documented = `${code}\n${codeOf(read('docs/low-level.md'))}`;
    expect(codes.filter((each) => !new RegExp(`\\b${each}\\b`).test(documented))).toEqual([]);
  });
});

describe('the API reference', () => {
  it('says of each type what it is: nothing is taken from one that it extends', () => {
    const silent = symbols.filter((each) => each.getDocumentationComment(checker).length === 0);
    expect(silent.map(({ name }) => name)).toEqual([]);
  });
});
