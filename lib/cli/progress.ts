import type { CliIo } from './io.js';
import { isTerminal, type OutputSettings } from './output.js';
import { packageScript, type Step } from './package-scripts.js';

/**
 * Runs a step that may take longer than a second. Standard error shows its progress. A step of less than a second
 * prints nothing.
 *
 * @param name what the step does: `loading the model`
 * @param note describes the result, in the last line of the step
 * @returns the result of `work`
 */
export type StepFunction = <Result>(
  name: string,
  work: (step: Step) => Promise<Result>,
  note?: (result: Result) => string,
) => Promise<Result>;

/** A step prints nothing before this time. */
const QUIET_MS = 1000;

/** A step that shows no progress. */
export const SILENT_STEP: Step = {
  update: () => undefined,
  note: () => undefined,
  done: () => undefined,
  fail: () => undefined,
};

export function stepFunction(io: CliIo, { quiet }: OutputSettings): StepFunction {
  return async (name, work, note) => {
    const step = quiet ? SILENT_STEP : await newStep(name, io);
    try {
      const result = await work(step);
      step.done(note?.(result));
      return result;
    } catch (error) {
      step.fail();
      throw error;
    }
  };
}

async function newStep(name: string, { stderr, env }: CliIo): Promise<Step> {
  const { Step } = await packageScript('progress.mjs');
  const shown = new Step(name, { quiet: true, stream: stderr, live: isTerminal(stderr, env) && !env.CI });
  const begin = performance.now();
  return {
    update: (state) => {
      if (performance.now() - begin >= QUIET_MS) {
        shown.update(state);
      }
    },
    note: (text) => shown.note(text),
    done: (text) => shown.done(text),
    fail: () => shown.fail(),
  };
}
