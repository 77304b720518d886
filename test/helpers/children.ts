// Runs a script with the compiled package in a child process, so that a crash, a hang or unexpected output is visible.
import { spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * A child that runs longer than this has hung. Tests of slower debug and sanitizer builds set LLAMA_HEADSTART_PATIENCE.
 */
const HANG_MS = 100_000 * Number(process.env.LLAMA_HEADSTART_PATIENCE ?? 1);

/** An environment in which a program computes on one thread. */
export const ONE_CORE = {
  ...process.env,
  NODE_OPTIONS: `--import=${new URL('one-core.mjs', import.meta.url).href}`,
};

export interface ChildResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The result of a child that ended normally and printed nothing. Compare with `toEqual`. */
export const CLEAN: ChildResult = { code: 0, signal: null, stdout: '', stderr: '' };

/**
 * @param script path of an ES module, relative to test/. An import of `llama-headstart` in this module resolves to this
 *   package's dist.
 */
export function runChild(
  script: string,
  args: readonly string[] = [],
  options: { nodeArgs?: readonly string[]; cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<ChildResult> {
  requireFreshDist();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...(options.nodeArgs ?? []), join(root, 'test', script), ...args], {
      cwd: options.cwd ?? root,
      stdio: ['ignore', 'pipe', 'pipe'],
      // Vitest's own settings must not reach the child.
      env: options.env ?? { ...process.env, NODE_OPTIONS: '' },
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    const hang = setTimeout(() => {
      stderr += '\nThe child hung and was killed';
      child.kill('SIGKILL');
    }, HANG_MS);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(hang);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

let checked = false;

/** Throws if dist is older than lib, because children would then test old code. `npm test` compiles lib first. */
export function requireFreshDist(): void {
  if (checked) return;
  for (const folder of ['.', 'packages/ai-sdk']) {
    const sources = readdirSync(join(root, folder, 'lib'), { encoding: 'utf8', recursive: true });
    for (const source of sources.filter((name) => name.endsWith('.ts'))) {
      const path = join(root, folder, 'dist', source.replace(/\.ts$/, '.js'));
      const compiled = statSync(path, { throwIfNoEntry: false });
      if (compiled === undefined || compiled.mtimeMs < statSync(join(root, folder, 'lib', source)).mtimeMs) {
        throw new Error(
          `dist is older than ${join(folder, 'lib', source)}. Run \`npm run build\`, or run the tests with \`npm test\`.`,
        );
      }
    }
  }
  checked = true;
}
