// A child process that runs one command at a time and replies with the milliseconds that the command took. The program
// is the baseline (bench/native/baseline.cpp), or this package's program with the same commands
// (bench/native/ours.mjs).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export class TimedProgram {
  #child;
  #lines;

  /**
   * @param {string} program
   * @param {{ model: string, threads: number, kvCells: number, sequences: number, tokensFile: string, stateFile?:
   *   string, layout?: 'unified' | 'split' }} options
   * @param {string[]} [leadingArguments] the first arguments of the program, such as a script for Node.js
   */
  static async start(
    program,
    { model, threads, kvCells, sequences, tokensFile, stateFile = '-', layout = 'unified' },
    leadingArguments = [],
  ) {
    const timed = new TimedProgram();
    const sizes = [threads, kvCells, sequences].map(String);
    timed.#child = spawn(program, [...leadingArguments, model, ...sizes, tokensFile, stateFile, layout], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    timed.#lines = createInterface(timed.#child.stdout)[Symbol.asyncIterator]();
    await timed.#readLine();
    return timed;
  }

  /** @param {string} command a command of baseline.cpp or ours.mjs @returns {Promise<number>} milliseconds */
  async ms(command) {
    this.#child.stdin.write(`${command}\n`);
    return Number(await this.#readLine());
  }

  async stop() {
    this.#child.stdin.end();
    await once(this.#child, 'exit');
  }

  async #readLine() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('The measured program ended early. See its message above.');
    return value;
  }
}
