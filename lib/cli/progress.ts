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

const SILENT: Step = {
  update: () => undefined,
  note: () => undefined,
  done: () => undefined,
  fail: () => undefined,
};

export function stepFunction({ stderr, env }: CliIo, { quiet }: OutputSettings): StepFunction {
  return async (name, work, note) => {
    const step = quiet ? SILENT : await newStep();
    try {
      const result = await work(step);
      step.done(note?.(result));
      return result;
    } catch (error) {
      step.fail();
      throw error;
    }
    async function newStep(): Promise<Step> {
      const { Step } = await packageScript('progress.mjs');
      return new Step(name, { quiet: true, stream: stderr, live: isTerminal(stderr, env) && !env.CI });
    }
  };
}
