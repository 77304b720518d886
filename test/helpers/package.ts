// Projects that install the packed package, as a user does: an empty folder, an empty cache, a PATH of our choice.
import { execFile } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

/** The repository. */
export const root = fileURLToPath(new URL('../../', import.meta.url)).replace(/[\\/]$/, '');

export { moduleFile, platformName } from '../../lib/native/places.js';

/** The folder of prebuilds/ for this machine, which both libcs of a Linux share. */
export const prebuildsName = `${process.platform}-${process.arch}`;
export const prebuilds = join(root, 'prebuilds', prebuildsName);

export interface Tarball {
  path: string;
  bytes: number;
  unpackedBytes: number;
  files: { path: string; size: number }[];
}

/** What `npm run test:package` packed. */
export function tarball(): Tarball {
  const listing = process.env.LLAMA_HEADSTART_TARBALL;
  if (!listing) {
    throw new Error('LLAMA_HEADSTART_TARBALL is not set: run these tests with `npm run test:package`');
  }
  return JSON.parse(readFileSync(listing, 'utf8'));
}

/** A line for the end of `npm run test:package`: what was installed, where, how large; what was skipped, and why. */
export function report(line: string): void {
  if (process.env.LLAMA_HEADSTART_PACKAGE_REPORT) {
    appendFileSync(process.env.LLAMA_HEADSTART_PACKAGE_REPORT, `${line}\n`);
  }
}

export interface Result {
  code: number;
  stdout: string;
  stderr: string;
}

/** What the example of the specification tells of itself. */
export interface Example {
  tiers: string[];
  stats: object;
  text: string;
}

/** Runs a program to its end, whatever that is. */
export function runProgram(
  command: string,
  args: string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<Result> {
  return new Promise((resolve) => {
    execFile(command, args, { maxBuffer: 64 * 1024 ** 2, ...options }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
      resolve({ code, stdout, stderr: error !== null && stderr === '' ? error.message : stderr });
    });
  });
}

const temporaryFolders: string[] = [];

// Registered here, as a test file is read: from inside a hook or a test vitest would not call it.
afterAll(() => Promise.all(temporaryFolders.map((each) => rm(each, { recursive: true, force: true }))));

/** A folder that goes at the end of the test file. Its name has spaces and letters beyond ASCII, as users' folders do. */
export async function temporaryFolder(name: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), `llama-headstart ${name} für 数 `));
  temporaryFolders.push(directory);
  return directory;
}

/** An empty npm project with a home and a cache of its own. */
export class Project {
  readonly directory: string;
  readonly home: string;
  readonly env: NodeJS.ProcessEnv;

  private constructor(directory: string, home: string, env: NodeJS.ProcessEnv) {
    this.directory = directory;
    this.home = home;
    this.env = env;
  }

  /** @param path folders of PATH beside one that holds Node alone; none: a machine without compilers */
  static async create(name: string, path: string[] = []): Promise<Project> {
    const base = await temporaryFolder(name);
    const [directory, home, programs] = [join(base, 'project'), join(base, 'home'), join(base, 'bin')];
    for (const each of [directory, home, programs]) {
      await mkdir(each);
    }
    await writeFile(join(directory, 'package.json'), '{ "name": "project", "private": true }\n');
    const windows = process.platform === 'win32';
    if (!windows) {
      await symlink(process.execPath, join(programs, 'node'));
      // npm's own program starts scripts and bins with sh.
      await symlink('/bin/sh', join(programs, 'sh'));
    }
    const inherited = Object.entries(process.env).filter(
      ([key]) => !/^(LLAMA_HEADSTART|XDG_|VITEST|NODE_OPTIONS|npm_(?!config_(registry|userconfig|cache)))/i.test(key),
    );
    const env = {
      ...Object.fromEntries(inherited),
      // Home and caches, as each system names them.
      HOME: home,
      USERPROFILE: home,
      LOCALAPPDATA: join(home, 'AppData', 'Local'),
      XDG_CACHE_HOME: join(home, '.cache'),
      PATH: [windows ? dirname(process.execPath) : programs, ...path].join(delimiter),
      npm_config_update_notifier: 'false',
      npm_config_audit: 'false',
      npm_config_fund: 'false',
    };
    return new Project(directory, home, env);
  }

  /** The installed package. */
  get installed(): string {
    return join(this.directory, 'node_modules', 'llama-headstart');
  }

  /** The command, as npm puts it into a project; there a shell's script on Windows. */
  get bin(): string {
    return process.platform === 'win32'
      ? join(this.installed, 'bin', 'llama-headstart.mjs')
      : join(this.directory, 'node_modules', '.bin', 'llama-headstart');
  }

  /** The installed package's folder in this project's user's cache, as the package itself has it. */
  async cache(): Promise<string> {
    return JSON.parse(await this.node([this.bin, 'doctor', '--json'])).userCache.path;
  }

  /** All files of project and home, but those that are npm's own. */
  async files(): Promise<string[]> {
    const all = await filesBelow(dirname(this.directory));
    return all
      .map(({ path }) => path)
      .filter((path) => !/[\\/](\.npm|npm-cache)[\\/]|[\\/]\.package-lock\.json$/.test(path))
      .sort();
  }

  async install(...more: string[]): Promise<void> {
    await this.npm('install', '--ignore-scripts', tarball().path, ...more);
  }

  async npm(...args: string[]): Promise<string> {
    const result = await this.run(process.execPath, [npmCli(), ...args]);
    if (result.code !== 0) {
      throw new Error(`npm ${args.join(' ')} failed: ${result.stderr}`);
    }
    return result.stdout;
  }

  /** Runs Node in the project; a failure throws with what it wrote. */
  async node(args: string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
    const result = await this.run(process.execPath, args, env);
    if (result.code !== 0) {
      throw new Error(`node ${args.join(' ')} ended with ${result.code}: ${result.stderr}`);
    }
    return result.stdout;
  }

  run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<Result> {
    return runProgram(command, args, { cwd: this.directory, env: { ...this.env, ...env } });
  }

  /** Runs the example of the specification in the project, and answers what it printed. Leaves nothing behind. */
  async example(name: 'example.mjs' | 'example.cjs', model: string): Promise<Example> {
    const programs = [await this.child(name), await this.child('example-steps.cjs')];
    const facts = JSON.parse(await this.node([programs[0] ?? '', model]));
    for (const left of [...programs, join(this.directory, '.cache')]) {
      await rm(left, { recursive: true, force: true });
    }
    return facts;
  }

  async uninstall(): Promise<void> {
    await this.npm('uninstall', 'llama-headstart');
  }

  /** Copies a program of test/package/children into the project, where it finds the installed package. */
  async child(name: string): Promise<string> {
    const target = join(this.directory, name);
    await cp(join(root, 'test', 'package', 'children', name), target);
    return target;
  }
}

/** The npm that belongs to this Node. */
function npmCli(): string {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli) === 'npm-cli.js') {
    return cli;
  }
  const library = process.platform === 'win32' ? '.' : join('..', 'lib');
  return join(dirname(process.execPath), library, 'node_modules', 'npm', 'bin', 'npm-cli.js');
}

/** All files below a folder, relative to it, with their sizes. */
export async function filesBelow(directory: string): Promise<{ path: string; size: number }[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(
    files.map(async (path) => ({ path: path.slice(directory.length + 1), size: (await stat(path)).size })),
  );
}

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
