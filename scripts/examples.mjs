// `npm run examples [-- MODEL] [-- --only NAME]`: sets up what is missing, compiles the examples and runs each of them.

import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { makeDirectory } from '../bin/lib/make-directory.mjs';
import { isMain, root, run, runMain } from '../bin/lib/run.mjs';
import { setup } from './setup.mjs';

/** Inside the package, so that its own name resolves, and to its dist. */
const compiled = join(root, '.build', 'examples');

/** Programs that others start. */
const HELPERS = ['mcp-server'];

/**
 * Compiles all examples: Node.js 20 runs no TypeScript. Several processes may do so at once.
 * @returns {Promise<Record<string, string>>} the compiled files by the examples' names
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
    const given = positionals[0];
    const { model } = await setup({ model: given === undefined, quiet: true });
    const source = given ?? model?.path;
    if (source === undefined) {
      throw new Error('SmolLM2 could not be fetched: name a model, `npm run examples -- MODEL.gguf`');
    }
    const examples = Object.entries(await compileExamples()).filter(
      ([name]) => values.only === undefined || name === values.only,
    );
    if (examples.length === 0) throw new Error(`There is no example named "${values.only}"`);
    const cwd = await mkdtemp(join(tmpdir(), 'llama-headstart-examples-'));
    try {
      for (const [name, file] of examples) {
        process.stderr.write(`\n── ${name}\n`);
        const path = /^[a-z]+:/i.test(source) ? source : resolve(source);
        const { code } = await run(process.execPath, [file, path], { cwd, inherit: true });
        if (code !== 0) throw new Error(`examples/${name}.ts failed (${code})`);
      }
    } finally {
      await rm(cwd, { recursive: true, force: true });
    }
  });
}
