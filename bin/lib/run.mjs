// Runs commands for the scripts. This file imports only built-in modules, because scripts also run before `npm ci`.

import { spawn } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root directory. */
export const root = fileURLToPath(new URL('../..', import.meta.url)).replace(/[\\/]$/, '');

const MAX_OUTPUT_LENGTH = 256 * 1024;

/**
 * @typedef {object} RunOptions
 * @property {string} [cwd] default: the repository's root
 * @property {NodeJS.ProcessEnv} [env] additional environment variables for the command
 * @property {boolean} [inherit] the command writes to this process's stdout and stderr, and its output is not returned
 * @property {(line: string) => void} [onLine] called for each line of stdout and stderr
 * @property {number} [idleTimeoutMs] end the command if it prints nothing for this long
 * @property {boolean} [interruptible] a signal that would end this process (Ctrl-C, `kill`) ends the command instead.
 *   The call then returns `interrupted: true`, so that the caller can clean up. The call also sets `process.exitCode`
 *   to the exit code of the signal.
 */

const SIGNALS = /** @type {const} */ ({ SIGHUP: 1, SIGINT: 2, SIGTERM: 15 });

/**
 * Runs a command and waits until it ends. The promise never rejects. The code is 127 if the command cannot be started,
 * and 124 if the command printed nothing for `idleTimeoutMs`.
 * @param {string} command
 * @param {string[]} args
 * @param {RunOptions} [options]
 * @returns {Promise<{ code: number, signal: NodeJS.Signals | null, stdout: string, output: string, interrupted: boolean }>}
 *   output: stdout and stderr together, at most the last 262,144 characters; signal: the signal that ended the command
 */
export function run(command, args, options = {}) {
  const { onLine, idleTimeoutMs, interruptible = false } = options;
  return new Promise((resolve) => {
    const child = start(command, args, options);
    const output = new OutputRecorder(onLine);
    let timedOut = false;
    let interrupted = false;
    const stop = () => stopChild(child, idleTimeoutMs !== undefined);
    const timer = setIdleTimer(idleTimeoutMs, () => {
      timedOut = true;
      stop();
    });
    // Ctrl-C in a terminal does not reach a command in a separate process group. This process must end that command.
    const signals = interruptible ? Object.keys(SIGNALS) : idleTimeoutMs !== undefined ? ['SIGINT'] : [];
    const onSignal = (/** @type {keyof typeof SIGNALS} */ signal) => {
      stop();
      process.exitCode = 128 + SIGNALS[signal];
      if (!interruptible) process.exit();
      interrupted = true;
      // If a child process of the command is still running, it ends when it writes to the closed stream.
      child.stdout?.destroy();
      child.stderr?.destroy();
    };
    for (const signal of signals) process.once(signal, onSignal);

    for (const stream of /** @type {const} */ (['stdout', 'stderr'])) {
      child[stream]?.setEncoding('utf8').on('data', (text) => {
        timer?.refresh();
        output.add(stream, text);
      });
    }
    const finish = (/** @type {number} */ code, /** @type {NodeJS.Signals | null} */ endSignal = null) => {
      clearTimeout(timer);
      for (const signal of signals) process.off(signal, onSignal);
      resolve({ code, signal: endSignal, ...output.end(), interrupted });
    };
    child.once('error', (error) => {
      output.note(error.message);
      finish(127);
    });
    child.once('close', (code, signal) => {
      if (timedOut) output.note(`\nended after ${(idleTimeoutMs ?? 0) / 1000} s without output`);
      finish(timedOut ? 124 : (code ?? (signal === 'SIGINT' ? 130 : 1)), signal);
    });
  });
}

const posix = process.platform !== 'win32';

/** @param {string} command @param {string[]} args @param {RunOptions} options */
function start(command, args, { cwd = root, env, inherit = false, idleTimeoutMs }) {
  return spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    stdio: inherit ? 'inherit' : ['ignore', 'pipe', 'pipe'],
    // On Windows npm is a .cmd file, which needs a shell.
    shell: !posix && command.endsWith('.cmd'),
    // The command gets a separate process group, so that a time limit also ends the command's child processes. For
    // example, git starts git-remote-https.
    detached: posix && idleTimeoutMs !== undefined,
  });
}

/**
 * @param {import('node:child_process').ChildProcess} child
 * @param {boolean} hasGroup whether the child process has its own process group
 */
function stopChild(child, hasGroup) {
  try {
    if (posix && child.pid && hasGroup) process.kill(-child.pid, 'SIGTERM');
    else child.kill();
  } catch {
    // The command has already ended.
  }
}

/** @param {number | undefined} ms @param {() => void} onTimeout */
const setIdleTimer = (ms, onTimeout) => (ms === undefined ? undefined : setTimeout(onTimeout, ms));

/** Collects the output of a command and splits it into lines. */
class OutputRecorder {
  #stdout = '';
  #output = '';
  #partialLine = '';
  #onLine;

  /** @param {((line: string) => void) | undefined} onLine */
  constructor(onLine) {
    this.#onLine = onLine;
  }

  /** @param {'stdout' | 'stderr'} stream @param {string} text */
  add(stream, text) {
    if (stream === 'stdout') this.#stdout += text;
    this.#output = (this.#output + text).slice(-MAX_OUTPUT_LENGTH);
    if (!this.#onLine) return;
    const lines = (this.#partialLine + text).split(/\r?\n/);
    this.#partialLine = lines.pop() ?? '';
    for (const line of lines) this.#onLine(line);
  }

  /** Appends a message from this process to the command's output. @param {string} text */
  note(text) {
    this.#output += text;
  }

  /** Passes an unfinished last line to `onLine`, and returns the whole output. */
  end() {
    if (this.#partialLine) this.#onLine?.(this.#partialLine);
    this.#partialLine = '';
    return { stdout: this.#stdout, output: this.#output };
  }
}

/**
 * Like `run`, but throws an error with the command and the last lines of its output if the exit code is not 0.
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
 * Runs the npm that started this script, or the npm on PATH.
 * @param {string[]} args
 * @param {RunOptions} [options]
 */
export function npm(args, options) {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli) === 'npm-cli.js') return run(process.execPath, [cli, ...args], options);
  return run(process.platform === 'win32' ? 'npm.cmd' : 'npm', args, options);
}

/**
 * Returns the last lines of a command's output, indented, for the end of an error message.
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
 * Returns whether Node.js was started with this module as its script.
 * @param {ImportMeta} meta
 */
export const isMain = (meta) =>
  process.argv[1] !== undefined && fileURLToPath(meta.url) === realpathSync(process.argv[1]);

/**
 * Runs a script's main function. If the function fails, prints the error's message and sets exit code 1. Prints the
 * stack trace only if the environment variable DEBUG is set.
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
