// The code in the documents is run as it stands there, on the real model, against the built package.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';
import { testModel } from '../helpers/models.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Inside the package, so that its own name resolves. */
const directory = join(root, '.build', 'documents');

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Runs the first TypeScript block of a document in a directory where its model is, and returns what it prints. */
async function runDocument(name: string): Promise<string> {
  const block = /```ts\n(.*?)```/s.exec(await readFile(join(root, name), 'utf8'))?.[1];
  expect(block, `a TypeScript block in ${name}`).toBeDefined();
  const place = join(directory, name.replaceAll('/', '-'));
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  await copyFile(testModel() as string, join(place, 'SmolLM2-135M-Instruct.Q4_1.gguf'));
  const { outputText } = ts.transpileModule(block as string, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  await writeFile(join(place, 'example.mjs'), outputText);
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
});
