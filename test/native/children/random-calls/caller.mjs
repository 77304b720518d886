import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { HeadstartError, Model } from 'llama-headstart/native';
import { Arguments, CallerError } from './arguments.mjs';
import { allCalls } from './calls.mjs';
import { Chance } from './chance.mjs';
import { Objects } from './objects.mjs';

const CALLS_IN_PROGRESS = 24;
const MAX_FAILURES = 3;

/** The declared error codes without INTERNAL. An error with that code would be a fault of the package. */
const declarations = readFileSync(new URL('../../../../dist/errors.d.ts', import.meta.url), 'utf8');
const CODES = new Set([...declarations.matchAll(/'([A-Z_]+)'/g)].map(([, code]) => code));
assert(CODES.delete('INTERNAL') && CODES.has('CLOSED'));

/** Makes the calls of one thread. */
export class Caller {
  /** Descriptions of the calls that ended neither with a result nor with an error code. */
  failures = [];
  /** For each kind of call: the number of results and the number of errors with a code. */
  outcomes = {};
  #options;
  #chance;
  #objects;
  #calls;

  constructor(options) {
    this.#options = options;
    this.#chance = new Chance(options.seed * 16 + options.thread);
    this.#objects = new Objects(this.#chance);
    this.#calls = allCalls(new Arguments(options, this.#chance, this.#objects));
  }

  async run() {
    const inProgress = new Set();
    this.#objects.add('models', await Model.load({ path: this.#options.models[this.#options.thread] }));
    for (let number = 0; number < this.#options.calls; number++) {
      const settled = this.#call(number).finally(() => inProgress.delete(settled));
      inProgress.add(settled);
      if (inProgress.size >= CALLS_IN_PROGRESS) await Promise.race(inProgress);
      else if (this.#chance.happens(0.2)) await new Promise(setImmediate);
      if (this.failures.length >= MAX_FAILURES) break;
    }
    await Promise.all(inProgress);
    await this.#objects.closeAll();
  }

  async #call(number) {
    const [kind, make] = this.#chance.pick(this.#calls);
    this.outcomes[kind] ??= [0, 0];
    const counts = this.outcomes[kind];
    let call;
    try {
      call = make();
      const result = await call.run();
      call.keep?.(result);
      counts[0]++;
    } catch (error) {
      counts[1]++;
      if ((HeadstartError.isInstance(error) && CODES.has(error.code)) || error instanceof CallerError) return;
      const { seed, thread } = this.#options;
      const shown = inspect(call?.shown, { depth: 3, breakLength: 120, maxArrayLength: 8, maxStringLength: 200 });
      this.failures.push(`seed ${seed}, thread ${thread}, call ${number}: ${kind} ${shown}\n${inspect(error)}`);
    }
  }
}
