// Runs a task of child.ts in a separate process with the compiled package.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { addonFolders, packageVersion } from 'llama-headstart/internal';
import { expect, onTestFinished } from 'vitest';
import type { Tasks } from './child.js';
import { requireFreshDist } from './children.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** A directory inside the package, so that imports of `llama-headstart` resolve to this package's dist. */
const directory = join(root, '.build', 'test-children');

/** child.ts and the helpers that it imports. */
const CHILD_FILES = ['child', 'lab', 'random'];

let compiled: Promise<unknown> | undefined;

export interface ProcessOptions {
  /** Kills the process. */
  signal?: AbortSignal;
  /** Additional environment variables. */
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** A directory with another build of the package and of child.ts: see {@link laterVersion}. @default this build */
  build?: string;
}

/**
 * @param name a task of child.ts
 * @returns the result of the task, converted to JSON and back
 */
export async function inOtherProcess<Name extends keyof Tasks>(
  name: Name,
  input: Parameters<Tasks[Name]>[0],
  { build = directory, env, ...options }: ProcessOptions = {},
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  await compileChildren();
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [join(build, 'child.js'), name, JSON.stringify(input)],
    { maxBuffer: 64 * 1024 ** 2, killSignal: 'SIGKILL', env: { ...process.env, ...env }, ...options },
  );
  return JSON.parse(stdout);
}

function compileChildren(): Promise<unknown> {
  requireFreshDist();
  compiled ??= Promise.all(CHILD_FILES.map(compile));
  return compiled;
}

/**
 * Makes a copy of the build that acts like a later version of the package. It has another version number, and other
 * formats of cache entries and derived files. The copy is removed when the test ends.
 */
export async function laterVersion(): Promise<Required<Pick<ProcessOptions, 'build' | 'env'>>> {
  await compileChildren();
  await mkdir(join(root, '.build'), { recursive: true });
  const build = await mkdtemp(join(root, '.build', 'later-version-'));
  onTestFinished(() => rm(build, { recursive: true, force: true }));
  await cp(join(root, 'dist'), join(build, 'dist'), { recursive: true });
  for (const name of CHILD_FILES) {
    await cp(join(directory, `${name}.js`), join(build, `${name}.js`));
  }
  const replace = async (file: string, from: string, to: string) => {
    const text = await readFile(file, 'utf8');
    expect(text).toContain(from);
    await writeFile(join(build, file.slice(root.length)), text.replace(from, to));
  };
  await replace(join(root, 'package.json'), `"version": "${packageVersion}"`, '"version": "99.0.0"');
  await replace(join(root, 'dist/cache/key.js'), 'ENTRY_FORMAT = 1', 'ENTRY_FORMAT = 2');
  await replace(join(root, 'dist/cache/disk/directory-index.js'), 'index-1.jsonl', 'index-2.jsonl');
  await replace(join(root, 'dist/cache/disk/cumulative-counts.js'), 'totals-1.json', 'totals-2.json');
  return { build, env: { LLAMA_HEADSTART_ADDON: addonFolders()[0]?.path } };
}

/** Compiles a helper that is also a program, and returns the path of the compiled file. */
export async function compileHelper(name: string): Promise<string> {
  await compile(name);
  return join(directory, `${name}.js`);
}

/** A process whose task prints `ready` and then waits for {@link OtherProcess.go}. */
export class OtherProcess<Result> {
  readonly child: ChildProcess;
  readonly #output: Promise<string>;
  readonly #ready: Promise<void>;

  constructor(child: ChildProcess) {
    this.child = child;
    let text = '';
    let isReady: () => void = () => undefined;
    this.#ready = new Promise((resolve) => {
      isReady = resolve;
    });
    child.stdout?.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      if (text.startsWith('ready\n')) {
        isReady();
      }
    });
    this.#output = new Promise((resolve) => {
      child.once('close', () => {
        isReady(); // so that `ready()` does not wait for a dead process
        resolve(text);
      });
    });
  }

  static async start<Name extends keyof Tasks>(
    name: Name,
    input: Parameters<Tasks[Name]>[0],
    { build = directory, env, ...options }: ProcessOptions = {},
  ): Promise<OtherProcess<Awaited<ReturnType<Tasks[Name]>>>> {
    await compileChildren();
    const child = spawn(process.execPath, [join(build, 'child.js'), name, JSON.stringify(input)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
      ...options,
    });
    child.stdin?.on('error', () => undefined); // the process may be dead
    return new OtherProcess(child);
  }

  /** Resolves when the process has printed `ready` or has ended. */
  ready(): Promise<void> {
    return this.#ready;
  }

  /** Lets the task continue. */
  go(): void {
    this.child.stdin?.write('go\n');
  }

  /** Waits until the process ends, and returns the result of the task. */
  async result(): Promise<Result> {
    return JSON.parse((await this.#output).slice('ready\n'.length));
  }

  /** Kills the process, and resolves when it has ended. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#output;
  }
}

/**
 * Compiles a helper if it has changed. Writes a temporary file and renames it, because other test files may compile the
 * same helper at the same time.
 */
async function compile(name: string): Promise<void> {
  const source = fileURLToPath(new URL(`${name}.ts`, import.meta.url));
  const target = join(directory, `${name}.js`);
  const changed = Math.max(await modifiedAt(source), await modifiedAt(fileURLToPath(import.meta.url)));
  if ((await modifiedAt(target)) > changed) {
    return;
  }
  const { default: ts } = await import('typescript'); // takes half a second
  const { outputText } = ts.transpileModule(await readFile(source, 'utf8'), {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  await mkdir(directory, { recursive: true });
  await writeFile(`${target}.${process.pid}`, outputText);
  await rename(`${target}.${process.pid}`, target);
}

/** Returns the modification time in milliseconds, or 0 if the file does not exist. */
async function modifiedAt(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;
}
