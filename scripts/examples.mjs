// `npm run examples [-- MODEL] [-- --only NAME]`: prepares this checkout, then compiles and runs the examples.

import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { isMain, root, run, runMain } from '../bin/lib/run.mjs';
import { setup } from './setup.mjs';

/** The directory is inside the package, so that an import of `llama-headstart` resolves to this package's dist. */
const compiled = join(root, '.build', 'examples');

/** Programs that an example starts. This script compiles these programs, but the example runs them. */
const HELPERS = ['mcp-server'];

/**
 * Compiles all examples, because Node.js 20 cannot run TypeScript. Several processes may compile at the same time.
 * @returns {Promise<Record<string, string>>} paths of the compiled files, by name of the example
 */
export async function compileExamples() {
  const { default: ts } = await import('typescript');
  await makeDirectory(compiled);
  const names = (await readdir(join(root, 'examples'))).filter((name) => name.endsWith('.ts'));
  const files = names.map(async (name) => {
    const source = await readFile(join(root, 'examples', name), 'utf8');
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
    });
    const target = join(compiled, name.replace(/\.ts$/, '.js'));
    await writeFile(`${target}.${process.pid}`, outputText);
    await rename(`${target}.${process.pid}`, target);
    return [basename(name, '.ts'), target];
  });
  const all = await Promise.all(files);
  return Object.fromEntries(all.filter(([name]) => !HELPERS.includes(/** @type {string} */ (name))));
}

if (isMain(import.meta)) {
  await runMain(async () => {
    const { values, positionals } = parseArgs({ options: { only: { type: 'string' } }, allowPositionals: true });
    const modelArgument = positionals[0];
    const { model } = await setup({ model: modelArgument === undefined, quiet: true });
    const source = modelArgument ?? model?.path;
    if (source === undefined) {
      throw new Error('SmolLM2 could not be downloaded. Name a model: `npm run examples -- MODEL.gguf`.');
    }
    const examples = Object.entries(await compileExamples()).filter(
      ([name]) => values.only === undefined || name === values.only,
    );
    if (examples.length === 0) throw new Error(`Expected --only to name a file in examples/, got "${values.only}".`);
    const cwd = await mkdtemp(join(tmpdir(), 'llama-headstart-examples-'));
    try {
      for (const [name, file] of examples) {
        process.stderr.write(`\n── ${name}\n`);
        const path = /^[a-z]+:/i.test(source) ? source : resolve(source);
        const { code } = await run(process.execPath, [file, path], { cwd, inherit: true });
        if (code !== 0) throw new Error(`examples/${name}.ts failed with exit code ${code}. See its output above.`);
      }
    } finally {
      await rm(cwd, { recursive: true, force: true });
    }
  });
}
