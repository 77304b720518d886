// Runs a task of child.ts in a process of its own, on the sources as they are now.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import type { Tasks } from './child.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Files of test/helpers that children run. */
const CHILD_FILES = ['child.ts', 'lab.ts'];

let compiled: Promise<string> | undefined;

/**
 * @param name a task of child.ts
 * @returns what the task returned, through JSON
 */
export async function inOtherProcess<Name extends keyof Tasks>(
  name: Name,
  input: Parameters<Tasks[Name]>[0],
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  compiled ??= compile();
  const script = join(await compiled, 'test/helpers/child.js');
  const { stdout } = await promisify(execFile)(process.execPath, [script, name, JSON.stringify(input)], {
    maxBuffer: 64 * 1024 ** 2,
  });
  return JSON.parse(stdout);
}

/** Compiles lib and the child's files into a directory named after their content, in the package: its addon is found. */
async function compile(): Promise<string> {
  const library = await readdir(join(root, 'lib'), { recursive: true });
  const names = [
    ...library.filter((name) => name.endsWith('.ts')).map((name) => join('lib', name)),
    ...CHILD_FILES.map((name) => join('test/helpers', name)),
  ].sort();
  const sources = await Promise.all(names.map((name) => readFile(join(root, name), 'utf8')));
  const hash = createHash('sha256')
    .update(JSON.stringify([names, sources]))
    .digest('hex')
    .slice(0, 16);
  const parent = join(root, '.build', 'test-children');
  await mkdir(parent, { recursive: true });
  if ((await readdir(parent)).includes(hash)) {
    return join(parent, hash);
  }
  const temporary = await mkdtemp(join(parent, 'making-'));
  for (const [index, name] of names.entries()) {
    const target = join(temporary, name.replace(/\.ts$/, '.js'));
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, toJavaScript(sources[index] as string));
  }
  await rename(temporary, join(parent, hash)).catch(() => rm(temporary, { recursive: true })); // another test made it
  return join(parent, hash);
}

function toJavaScript(source: string): string {
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  return outputText
    .replaceAll("'llama-headstart/native'", "'../../lib/native/index.js'")
    .replaceAll("'llama-headstart'", "'../../lib/index.js'");
}
