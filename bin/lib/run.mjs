// Runs commands for the scripts. Needs nothing but Node: these scripts work before `npm ci`.

import { spawn } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root directory. */
export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/[\\/]$/, '');

const KEPT_OUTPUT = 256 * 1024;

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd] default: the repository's root
 * @property {NodeJS.ProcessEnv} [env] added to this process's environment
 * @property {boolean} [inherit] give the command this terminal: stdout and stderr pass through and are not kept
 * @property {(line: string) => void} [onLine] called for each line of stdout and stderr
 * @property {number} [idleTimeoutMs] end the command once it has been silent for so long
 * @property {boolean} [interruptible] a signal that would end this process (Ctrl-C, `kill`) ends the command instead: the call comes
 *   back with `interrupted`, so that its caller can tidy up, and the process will have the signal's exit code
 */

const SIGNALS = /** @type {const} */ ({ SIGHUP: 1, SIGINT: 2, SIGTERM: 15 });

/**
 * Runs a command to its end. Never rejects: a command that is not there has code 127, one that was ended code 124.
 * @param {string} command
 * @param {string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<{ code: number, signal: NodeJS.Signals | null, stdout: string, output: string, interrupted: boolean }>} output: both
 *   streams, at most the last 256 KiB; signal: what ended the command, if a signal did
 */
export function run(command, args, options = {}) {
  const { cwd = root, env, inherit = false, onLine, idleTimeoutMs, interruptible = false } = options;
  return new Promise((resolve) => {
    const posix = process.platform !== 'win32';
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: inherit ? 'inherit' : ['ignore', 'pipe', 'pipe'],
      // npm and its like are .cmd files on Windows, which only a shell starts.
      shell: !posix && command.endsWith('.cmd'),
      // A group of its own, so that a time limit ends grandchildren too (git starts git-remote-https).
      detached: posix && idleTimeoutMs !== undefined,
    });

    let stdout = '';
    let output = '';
    let partial = '';
    let timedOut = false;
    let interrupted = false;

    const end = () => {
      try {
        if (posix && child.pid && idleTimeoutMs !== undefined) process.kill(-child.pid, 'SIGTERM');
        else child.kill();
      } catch {
        // It ended by itself in the meantime.
      }
    };
    const onSignal = (/** @type {keyof typeof SIGNALS} */ signal) => {
      end();
      process.exitCode = 128 + SIGNALS[signal];
      if (!interruptible) process.exit();
      interrupted = true;
      // What the command has started ends when it writes next.
      child.stdout?.destroy();
      child.stderr?.destroy();
    };
    // A group of its own does not get the terminal's Ctrl-C.
    const signals = interruptible ? Object.keys(SIGNALS) : idleTimeoutMs !== undefined ? ['SIGINT'] : [];
    for (const signal of signals) process.once(signal, onSignal);

    const timer =
      idleTimeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            timedOut = true;
            end();
          }, idleTimeoutMs);

    const take = (/** @type {string} */ text) => {
      timer?.refresh();
      output = (output + text).slice(-KEPT_OUTPUT);
      if (!onLine) return;
      const lines = (partial + text).split(/\r?\n/);
      partial = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    };
    child.stdout?.setEncoding('utf8').on('data', (text) => {
      stdout += text;
      take(text);
    });
    child.stderr?.setEncoding('utf8').on('data', take);

    const finish = (/** @type {number} */ code, /** @type {NodeJS.Signals | null} */ signal = null) => {
      clearTimeout(timer);
      for (const signal of signals) process.off(signal, onSignal);
      if (partial) onLine?.(partial);
      partial = '';
      resolve({ code, signal, stdout, output, interrupted });
    };
    child.once('error', (error) => {
      output += String(error.message);
      finish(127);
    });
    child.once('close', (code, signal) => {
      if (timedOut) output += `\nended after ${(idleTimeoutMs ?? 0) / 1000} s of silence`;
      finish(timedOut ? 124 : (code ?? (signal === 'SIGINT' ? 130 : 1)), signal);
    });
  });
}

/**
 * Like `run`, but a failure throws an error with the command and its last lines.
 * @param {string} command
 * @param {string[]} args
 * @param {RunOptions} [options]
 */
export async function mustRun(command, args, options) {
  const result = await run(command, args, options);
  if (result.code !== 0) {
    throw new Error(`\`${[basename(command), ...args].join(' ')}\` failed (${result.code})${quoteTail(result.output)}`);
  }
  return result;
}

/**
 * The npm that started this script, or else the one on PATH.
 * @param {string[]} args
 * @param {RunOptions} [options]
 */
export function npm(args, options) {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli) === 'npm-cli.js') return run(process.execPath, [cli, ...args], options);
  return run(process.platform === 'win32' ? 'npm.cmd' : 'npm', args, options);
}

/**
 * The last lines of a command's output, indented, to be put behind a message.
 * @param {string} output
 * @param {number} [count]
 */
export function quoteTail(output, count = 8) {
  const lines = output
    .split(/\r?\n|\r/)
    .filter((line) => line.trim() !== '')
    .slice(-count);
  return lines.length === 0 ? '' : `:\n${lines.map((line) => `    ${line}`).join('\n')}`;
}

/**
 * Whether this module is the script that Node was started with.
 * @param {ImportMeta} meta
 */
export const isMain = (meta) =>
  process.argv[1] !== undefined && fileURLToPath(meta.url) === realpathSync(process.argv[1]);

/**
 * Runs a script's main function; a failure becomes a message and exit code 1, without a stack trace.
 * @param {() => Promise<unknown>} main
 */
export async function runMain(main) {
  try {
    await main();
  } catch (error) {
    const shown = process.env.DEBUG ? /** @type {Error} */ (error).stack : /** @type {Error} */ (error).message;
    process.stderr.write(`\n✗ ${shown ?? String(error)}\n`);
    process.exitCode ||= 1;
  }
}
