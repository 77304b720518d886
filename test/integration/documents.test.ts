// The code in the documents is run as it stands there, on the real model, against the built package.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';
// @ts-expect-error: scripts are plain JavaScript
import { compileExamples } from '../../scripts/examples.mjs';
import { testModel } from '../helpers/models.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Inside the package, so that its own name resolves. */
const directory = join(root, '.build', 'documents');

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Runs the TypeScript blocks of a document as one program, in a directory where its model is, and returns what it prints. */
async function runDocument(name: string, programs: Record<string, string> = {}): Promise<string> {
  const blocks = [...(await readFile(join(root, name), 'utf8')).matchAll(/```ts\n(.*?)```/gs)].map((match) => match[1]);
  expect(blocks, `TypeScript blocks in ${name}`).not.toHaveLength(0);
  const place = join(directory, name.replaceAll('/', '-'));
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  await copyFile(testModel() as string, join(place, 'SmolLM2-135M-Instruct.Q4_1.gguf'));
  const { outputText } = ts.transpileModule(blocks.join('\n'), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  await writeFile(join(place, 'example.mjs'), outputText);
  for (const [program, path] of Object.entries(programs)) {
    await copyFile(path, join(place, program));
  }
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['example.mjs'], { cwd: place });
  expect(stderr).toBe('');
  return stdout;
}

describe.skipIf(testModel() === undefined)('the documents', () => {
  it('show a README example that runs, misses once and replies', async () => {
    const printed = await runDocument('README.md');
    expect(printed).toMatch(/tier: 'miss'/);
    expect(printed).toMatch(/entries: 1,/);
    expect(printed.length).toBeGreaterThan(400);
  });

  it('show a low-level walk-through that runs and goes on from a restored state', async () => {
    expect(await runDocument('docs/low-level.md')).toMatch(/red/i);
  });

  it('show a page on the template cache whose code runs, with a tenant of its own and an explained miss', async () => {
    const printed = await runDocument('docs/cache.md');
    expect(printed).toMatch(/tier: 'miss'/);
    expect(printed).toMatch(/careful/);
    expect(printed).toMatch(/entries: 3,/);
  });

  it('show a guide to the agent API that runs from its first block to its last', async () => {
    await compileExamples();
    const printed = await runDocument('docs/agent.md', {
      'mcp-server.js': join(root, '.build/examples/mcp-server.js'),
    });
    expect(printed).toMatch(/^loaded\nmiss true\n(stop|length) true\n/);
    expect(printed).toMatch(/\d+ tokens, the first after \d+ ms\n4\n2\ntrue 6\n\d\ntrue \d+ true\n/);
    expect(printed).toMatch(/string number\nfind_book false\n/);
    expect(printed).toMatch(/clock: time_in/);
    expect(printed).toMatch(/What time is it in Lima\?/);
    expect(printed).toMatch(/\{ total: 4096, used: \d+, free: \d+ \}/);
    expect(printed).toMatch(/turn start\nturn end\ntrue\n$/);
  }, 300_000);
});
