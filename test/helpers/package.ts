// Makes projects that install the packed package as a user does. A project has an empty directory, an empty cache and a
// chosen PATH.
import { execFile } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

/** The root directory of the repository. */
export const root = fileURLToPath(new URL('../../', import.meta.url)).replace(/[\\/]$/, '');

export { moduleFile, platformName } from 'llama-headstart/internal';

/** The name of this machine's directory in prebuilds/. On Linux the directory contains the binaries for both libcs. */
export const prebuildsName = `${process.platform}-${process.arch}`;
export const prebuilds = join(root, 'prebuilds', prebuildsName);

export interface Tarball {
  path: string;
  bytes: number;
  unpackedBytes: number;
  files: { path: string; size: number }[];
}

/** The tarball that `npm run test:package` packed. */
export function tarball(): Tarball {
  const listing = process.env.LLAMA_HEADSTART_TARBALL;
  if (!listing) {
    throw new Error('LLAMA_HEADSTART_TARBALL is not set. Run these tests with `npm run test:package`.');
  }
  return JSON.parse(readFileSync(listing, 'utf8'));
}

/**
 * Adds a line to the report at the end of `npm run test:package`. A line has installed files and sizes, or the reason
 * of a skipped test.
 */
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

/** The output of the specification's example (test/package/children/example-steps.cjs). */
export interface Example {
  sources: string[];
  stats: object;
  text: string;
}

/** Runs a program and returns its result. Never rejects. */
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

// This module registers the hook when it is loaded, because vitest ignores an afterAll inside a hook or a test.
afterAll(() => Promise.all(temporaryFolders.map((folder) => rm(folder, { recursive: true, force: true }))));

/**
 * Makes a directory that is removed after all tests of the file. Its name contains spaces and non-ASCII letters,
 * because users have such directories.
 */
export async function temporaryFolder(name: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), `llama-headstart ${name} für 数 `));
  temporaryFolders.push(directory);
  return directory;
}

/** An empty npm project with its own home directory and its own cache. */
export class Project {
  readonly directory: string;
  readonly home: string;
  readonly env: NodeJS.ProcessEnv;

  private constructor(directory: string, home: string, env: NodeJS.ProcessEnv) {
    this.directory = directory;
    this.home = home;
    this.env = env;
  }

  /** @param path additional directories of PATH. Without them, PATH has only Node.js and sh, and thus no compiler. */
  static async create(name: string, path: string[] = []): Promise<Project> {
    const base = await temporaryFolder(name);
    const [directory, home, programs] = [join(base, 'project'), join(base, 'home'), join(base, 'bin')];
    for (const folder of [directory, home, programs]) {
      await mkdir(folder);
    }
    await writeFile(join(directory, 'package.json'), '{ "name": "project", "private": true }\n');
    const windows = process.platform === 'win32';
    if (!windows) {
      await symlink(process.execPath, join(programs, 'node'));
      // npm runs scripts and commands with sh.
      await symlink('/bin/sh', join(programs, 'sh'));
    }
    const inherited = Object.entries(process.env).filter(
      ([key]) => !/^(LLAMA_HEADSTART|XDG_|VITEST|NODE_OPTIONS|npm_(?!config_(registry|userconfig|cache)))/i.test(key),
    );
    const env = {
      ...Object.fromEntries(inherited),
      // These variables name the home and cache directories on all operating systems.
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

  /** The directory of the installed package. */
  get installed(): string {
    return join(this.directory, 'node_modules', 'llama-headstart');
  }

  /**
   * The installed command as a file that Node.js can run. On Windows the command is a shell script, so this is the path
   * of the program that the script runs.
   */
  get bin(): string {
    return process.platform === 'win32'
      ? join(this.installed, 'bin', 'llama-headstart.mjs')
      : join(this.directory, 'node_modules', '.bin', 'llama-headstart');
  }

  /** The installed package's directory in the user's cache, as `doctor` reports it. */
  async cache(): Promise<string> {
    return JSON.parse(await this.node([this.bin, 'doctor', '--json'])).userCache.path;
  }

  /** Lists all files of the project and the home directory, except the files of npm. */
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

  /** Runs Node.js in the project and returns stdout. Throws an error with stderr if the exit code is not 0. */
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

  /** Runs the specification's example in the project and returns its output. Removes all files that the run created. */
  async example(name: 'example.mjs' | 'example.cjs', model: string): Promise<Example> {
    const programs = [await this.child(name), await this.child('example-steps.cjs')];
    const output = JSON.parse(await this.node([programs[0] ?? '', model]));
    for (const path of [...programs, join(this.directory, '.cache')]) {
      await rm(path, { recursive: true, force: true });
    }
    return output;
  }

  async uninstall(): Promise<void> {
    await this.npm('uninstall', 'llama-headstart');
  }

  /** Copies a program of test/package/children into the project, so that it imports the installed package. */
  async child(name: string): Promise<string> {
    const target = join(this.directory, name);
    await cp(join(root, 'test', 'package', 'children', name), target);
    return target;
  }
}

/** Returns the path of the npm that belongs to this Node.js. */
export function npmCli(): string {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli) === 'npm-cli.js') {
    return cli;
  }
  const library = process.platform === 'win32' ? '.' : join('..', 'lib');
  return join(dirname(process.execPath), library, 'node_modules', 'npm', 'bin', 'npm-cli.js');
}

/** Lists all files in a directory and its subdirectories: paths relative to the directory, and sizes in bytes. */
export async function filesBelow(directory: string): Promise<{ path: string; size: number }[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(
    files.map(async (path) => ({ path: path.slice(directory.length + 1), size: (await stat(path)).size })),
  );
}

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
