// Tests the published package @llama-headstart/ai-sdk beside the published core: its contents, its types, and programs
// with AI SDK 6 and 7.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { ensureNode, NODE_VERSIONS } from '../../scripts/lib/node-versions.mjs';
import { expectGrowingPrompts, expectScenarios } from '../helpers/ai-sdk-scenarios.js';
import { programOf } from '../helpers/documents.js';
import { microModel, testModel } from '../helpers/models.js';
import { npmCli, Project, platformName, report, root, runProgram, temporaryFolder } from '../helpers/package.js';

/** The tested versions of the package `ai`, and the entry points of the provider for them. */
const VERSIONS = [
  { ai: '6.0.325', entry: '@llama-headstart/ai-sdk/v3', minimumNode: 20 },
  { ai: '7.0.173', entry: '@llama-headstart/ai-sdk', minimumNode: 22 },
];

let tarball: string;
let files: string[];

beforeAll(async () => {
  const folder = await temporaryFolder('ai-sdk');
  const packed = await runProgram(process.execPath, [npmCli(), 'pack', '--json', '--pack-destination', folder], {
    cwd: join(root, 'packages', 'ai-sdk'),
  });
  expect(packed.code, packed.stderr).toBe(0);
  const [{ filename, files: listed }] = JSON.parse(packed.stdout);
  tarball = join(folder, filename);
  files = (listed as { path: string }[]).map(({ path }) => path);
});

/** A program in TypeScript that uses the provider in every way that has types. */
const programWithTypes = (entry: string) => `
import { createLlamaHeadstart, type LlamaHeadstartMessageOptions, type LlamaHeadstartSettings } from '${entry}';
import { createProviderRegistry, generateText, type LanguageModel, Output, stepCountIs, streamText, tool, wrapLanguageModel } from 'ai';
import { AgentServer } from 'llama-headstart';
import { z } from 'zod';

const settings: LlamaHeadstartSettings = { model: { source: 'model.gguf', contextSize: 2048 }, systemPrompt: 'Hm.' };
await using lazy = createLlamaHeadstart(settings);
const headstart = createLlamaHeadstart({ agent: await AgentServer.initialize(settings) });
const model: LanguageModel = headstart('name');
const boundary = { cacheBoundary: { ttlMs: 1000 }, tenant: 'a' } satisfies LlamaHeadstartMessageOptions;
const lamp = tool({ inputSchema: z.object({ on: z.boolean() }), execute: async ({ on }) => on });
const { output } = await generateText({
  model: wrapLanguageModel({ model: lazy(), middleware: [] }),
  messages: [{ role: 'user', content: 'Hello', providerOptions: { headstart: boundary } }],
  tools: { lamp },
  stopWhen: stepCountIs(2),
  output: Output.object({ schema: z.object({ count: z.number() }) }),
});
const count: number = output.count;
const registry = createProviderRegistry({ headstart });
streamText({ model: registry.languageModel('headstart:name'), prompt: String(count) });
streamText({ model, prompt: 'Hello' });
await headstart.close();
`;

describe('the tarball of the AI SDK provider', () => {
  it('contains documents, dist and sources, and nothing else', () => {
    const expected = /^((README|LICENSE|package)(\.md|\.json)?|dist\/[\w-]+\.(js|d\.ts)(\.map)?|lib\/[\w-]+\.ts)$/;
    expect(files.filter((path) => !expected.test(path))).toEqual([]);
    expect(files).toEqual(
      expect.arrayContaining(['dist/index.js', 'dist/index.d.ts', 'dist/v3.js', 'dist/v3.d.ts', 'LICENSE']),
    );
  });

  it('passes publint in strict mode', async () => {
    const publint = join(root, 'node_modules/publint/src/cli.js');
    const { code, stdout, stderr } = await runProgram(process.execPath, [publint, 'run', tarball, '--strict'], {
      cwd: root,
    });
    expect(`${stdout}${stderr}`).toMatch(/All good/i);
    expect(code).toBe(0);
  });
});

describe.each(VERSIONS)('the AI SDK provider beside the core and ai@$ai', ({ ai, entry, minimumNode }) => {
  let project: Project;
  beforeAll(async () => {
    project = await Project.create(`ai-${minimumNode}`);
    await project.install(tarball, `ai@${ai}`, '@types/node@20');
    await writeFile(join(project.directory, 'typed.mts'), programWithTypes(entry));
    const guide = entry.endsWith('/v3') ? '' : programOf(['docs/guide/ai-sdk.md']); // the guide shows AI SDK 7
    await writeFile(join(project.directory, 'guide.mts'), guide);
  });

  it.each(['bundler', 'node16'])(
    'has types that fit under `strict` with the module resolution %s',
    async (resolution) => {
      const module = resolution === 'node16' ? 'node16' : 'esnext';
      const { code, stdout } = await project.run(process.execPath, [
        ...[
          join(root, 'node_modules/typescript/bin/tsc'),
          '--strict',
          '--noEmit',
          '--target',
          'es2023',
          '--types',
          'node',
        ],
        ...[
          '--lib',
          'es2023,esnext.disposable,dom',
          '--module',
          module,
          '--moduleResolution',
          resolution,
          'typed.mts',
          'guide.mts',
        ],
      ]);
      // Declarations of other packages may have errors of their own.
      const errors = stdout
        .split('\n')
        .filter((line) => /^((typed|guide)\.mts|node_modules\/@llama-headstart\/)/.test(line));
      expect({ errors, isComplete: code === 0 || stdout.includes('error TS') }).toEqual({
        errors: [],
        isComplete: true,
      });
    },
  );

  const version = NODE_VERSIONS.find((each) => Number.parseInt(each, 10) >= minimumNode) as string;
  const isMusl = platformName.endsWith('-musl');
  it.skipIf(isMusl || testModel() === undefined)(`runs programs on Node.js ${version}`, async () => {
    const node = await ensureNode(version);
    const program = await project.child('ai-sdk.mjs');
    const { code, stdout, stderr } = await project.run(node, [
      program,
      entry,
      testModel() as string,
      microModel('dense'),
    ]);
    expect(code, stderr).toBe(0);
    const { scenarios, fiveSteps } = JSON.parse(stdout);
    expectScenarios(scenarios);
    expect(fiveSteps).toHaveLength(5);
    expectGrowingPrompts(fiveSteps);
    report(
      `AI SDK ${ai} on Node ${version}: text, tool loops, structured output, agents, middleware and UI messages work`,
    );
  });
});
