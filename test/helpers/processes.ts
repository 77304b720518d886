// Runs a task of child.ts in a process of its own, against the compiled package.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import type { Tasks } from './child.js';
import { requireFreshDist } from './children.js';

/** Inside the package, so that its own name resolves, and to its dist. */
const directory = fileURLToPath(new URL('../../.build/test-children/', import.meta.url));

let compiled: Promise<unknown> | undefined;

/**
 * @param name a task of child.ts
 * @param options.signal kills the process
 * @returns what the task returned, through JSON
 */
export async function inOtherProcess<Name extends keyof Tasks>(
  name: Name,
  input: Parameters<Tasks[Name]>[0],
  options: { signal?: AbortSignal } = {},
): Promise<Awaited<ReturnType<Tasks[Name]>>> {
  requireFreshDist();
  compiled ??= Promise.all(['child', 'lab'].map(compile));
  await compiled;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [join(directory, 'child.js'), name, JSON.stringify(input)],
    { maxBuffer: 64 * 1024 ** 2, killSignal: 'SIGKILL', ...options },
  );
  return JSON.parse(stdout);
}

/** Compiles a helper that is a program of its own; returns its path. */
export async function compileHelper(name: string): Promise<string> {
  await compile(name);
  return join(directory, `${name}.js`);
}

/** A task that says `ready` and goes on when told to. */
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
    child.stdout?.setEncoding('utf8').on('data', (piece) => {
      text += piece;
      if (text.startsWith('ready\n')) {
        isReady();
      }
    });
    this.#output = new Promise((resolve) => {
      child.once('close', () => {
        isReady(); // one that died is not waited for
        resolve(text);
      });
    });
  }

  static async start<Name extends keyof Tasks>(
    name: Name,
    input: Parameters<Tasks[Name]>[0],
  ): Promise<OtherProcess<Awaited<ReturnType<Tasks[Name]>>>> {
    requireFreshDist();
    compiled ??= Promise.all(['child', 'lab'].map(compile));
    await compiled;
    const child = spawn(process.execPath, [join(directory, 'child.js'), name, JSON.stringify(input)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin?.on('error', () => undefined); // it may be dead
    return new OtherProcess(child);
  }

  ready(): Promise<void> {
    return this.#ready;
  }

  go(): void {
    this.child.stdin?.write('go\n');
  }

  /** What the task returned. */
  async result(): Promise<Result> {
    return JSON.parse((await this.#output).slice('ready\n'.length));
  }

  /** Ends it in the middle of whatever it does, and resolves when it is gone. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#output;
  }
}

/** Other test files may do the same at this moment: each writes the whole, and renames. */
async function compile(name: string): Promise<void> {
  const source = await readFile(new URL(`${name}.ts`, import.meta.url), 'utf8');
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true },
  });
  const target = join(directory, `${name}.js`);
  await mkdir(directory, { recursive: true });
  await writeFile(`${target}.${process.pid}`, outputText);
  await rename(`${target}.${process.pid}`, target);
}
