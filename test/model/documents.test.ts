// Runs the programs in the documents unchanged, on a real model, with the built package.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Model } from 'llama-headstart/native';
import ts from 'typescript';
import { afterAll, describe, expect, it } from 'vitest';
// @ts-expect-error: scripts are plain JavaScript
import { compileExamples } from '../../scripts/examples.mjs';
import { ONE_CORE } from '../helpers/children.js';
import { PROGRAMS, programOf } from '../helpers/documents.js';
import { testModel } from '../helpers/models.js';
import { batchOf, prefill } from '../helpers/native.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** The directory is inside the package, so that programs can import the package by its name. */
const directory = join(root, '.build', 'documents');

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Runs one of `PROGRAMS` in a directory that contains its model, and returns its output. */
async function runProgram(name: string, programs: Record<string, string> = {}): Promise<string> {
  const place = join(directory, name.replaceAll(/[/ ]/g, '-'));
  await rm(place, { recursive: true, force: true });
  await mkdir(place, { recursive: true });
  await symlink(testModel() as string, join(place, 'SmolLM2-135M-Instruct.Q4_1.gguf'));
  const { outputText } = ts.transpileModule(programOf(PROGRAMS[name] ?? []), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  await writeFile(join(place, 'example.mjs'), outputText);
  for (const [program, path] of Object.entries(programs)) {
    await copyFile(path, join(place, program));
  }
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['example.mjs'], {
    cwd: place,
    env: ONE_CORE,
  });
  expect(stderr).toBe('');
  return stdout;
}

/** Returns the greedy text that the model generates after a prompt in a new context. */
async function greedyText(prompt: string, count: number): Promise<string> {
  const model = await Model.load({ path: testModel() as string });
  const context = await model.createContext({ kvCells: 4096, maxSequences: 3 });
  const prefix = await model.tokenize(prompt);
  let token = await prefill(context, 0, prefix);
  const bytes: Uint8Array[] = [];
  for (let at = prefix.length; at < prefix.length + count && !model.isEndOfGeneration(token); at++) {
    bytes.push(model.tokenToBytes(token));
    [token = 0] = await context.decode(batchOf(0, at, Int32Array.of(token)));
  }
  await model.close();
  return Buffer.concat(bytes).toString();
}

describe.skipIf(testModel() === undefined)('the documents', () => {
  it('have a README program that runs: its first session is a miss, and the model replies', async () => {
    const printed = await runProgram('README.md');
    expect(printed).toMatch(/cache: 'miss'/);
    expect(printed).toMatch(/entries: 1,/);
    expect(printed.length).toBeGreaterThan(400);
  });

  it('have a low-level program that runs and continues from a restored state', async () => {
    expect(await runProgram('docs/guide/low-level.md')).toBe(await greedyText('The three primary colors are', 12));
  });

  it('have a caching program that runs, with a session of a tenant and an explained miss', async () => {
    const printed = await runProgram('docs/guide/caching.md');
    expect(printed).toMatch(/cache: 'miss'/);
    expect(printed).toMatch(/careful/);
    expect(printed).toMatch(/entries: 3,/);
  });

  it('have a guide whose blocks run as one program', async () => {
    await compileExamples();
    const printed = await runProgram('the agent guide', {
      'mcp-server.js': join(root, '.build/examples/mcp-server.js'),
    });
    expect(printed).toMatch(/^loaded\nprefill true\n(stop|length) true\n/);
    expect(printed).toMatch(/\d+ tokens, the first after \d+ ms\n4\ntrue \d+ true\n2\ntrue 6\n\d\n/);
    expect(printed).toMatch(/string number\n0 number\ntrue\nfind_book false\n/);
    expect(printed).toMatch(/clock: time_in/);
    expect(printed).toMatch(/What time is it in Lima\?/);
    expect(printed).toMatch(/\{ total: 4096, used: \d+, free: \d+ \}/);
    expect(printed).toMatch(/turn start\nturn end\ntrue\n$/);
  }, 300_000);
});
