// The native program that benchmarks measure against (bench/native/floor.cpp), as a child that answers one command at a time; or
// another that answers as it does.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export class Floor {
  #child;
  #lines;

  /**
   * @param {string} program
   * @param {{ model: string, threads: number, kvCells: number, sequences: number, tokensFile: string, stateFile?: string, layout?: 'unified' | 'split' }} options
   * @param {string[]} [before] arguments of the program before those
   */
  static async start(
    program,
    { model, threads, kvCells, sequences, tokensFile, stateFile = '-', layout = 'unified' },
    before = [],
  ) {
    const floor = new Floor();
    const sizes = [threads, kvCells, sequences].map(String);
    floor.#child = spawn(program, [...before, model, ...sizes, tokensFile, stateFile, layout], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    floor.#lines = createInterface(floor.#child.stdout)[Symbol.asyncIterator]();
    await floor.#answer();
    return floor;
  }

  /** @param {string} command see floor.cpp @returns {Promise<number>} milliseconds */
  async ms(command) {
    this.#child.stdin.write(`${command}\n`);
    return Number(await this.#answer());
  }

  async stop() {
    this.#child.stdin.end();
    await once(this.#child, 'exit');
  }

  async #answer() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('The floor program ended: see its message above');
    return value;
  }
}
