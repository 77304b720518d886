// docs/agent.md tells of every option and every method that users of the agent API have; what is the template cache's may be
// in docs/cache.md.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';
import { beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The types of the agent API that users write, call or read. */
const TYPES = [
  'AgentServer',
  'AgentOptions',
  'ModelConfig',
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

/** Names of a type's members, but for internal ones and those that a language feature has. */
function membersOf(checker: ts.TypeChecker, symbol: ts.Symbol): string[] {
  const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
  return checker
    .getDeclaredTypeOfSymbol(target)
    .getProperties()
    .filter((each) => !each.getJsDocTags().some(({ name }) => name === 'internal'))
    .map(({ name }) => name)
    .filter((name) => /^[a-z]\w*$/i.test(name));
}

describe('docs/agent.md', () => {
  let members: Map<string, string[]>;

  beforeAll(() => {
    const entry = `${root}lib/index.ts`;
    const { options } = ts.parseJsonConfigFileContent(
      ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile).config,
      ts.sys,
      root,
    );
    const program = ts.createProgram([entry], options);
    const checker = program.getTypeChecker();
    const module = checker.getSymbolAtLocation(program.getSourceFile(entry) as ts.SourceFile) as ts.Symbol;
    members = new Map(checker.getExportsOfModule(module).map((each) => [each.name, membersOf(checker, each)]));
  });

  const read = (name: string) => readFileSync(`${root}docs/${name}`, 'utf8');
  const codeOf = (text: string) => (text.match(/```[\s\S]*?```|`[^`\n]+`/g) ?? []).join('\n');
  const code = codeOf(read('agent.md'));
  const ofCache = codeOf(read('cache.md'));

  it.each(TYPES)('names all of %s', (type) => {
    const known = type === 'ModelConfig' || type === 'AgentTemplateCache' ? `${code}\n${ofCache}` : code;
    const names = members.get(type) ?? [];
    expect(names.length).toBeGreaterThan(0);
    expect(names.filter((name) => !new RegExp(`\\b${name}\\b`).test(known))).toEqual([]);
  });
});
