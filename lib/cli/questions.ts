import type * as Prompts from '@clack/prompts';
import { abortedError } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { Call } from './command.js';

type Asker = Pick<Call, 'io' | 'output' | 'signal' | 'interrupts'>;

/**
 * Asks whether to do something that cannot be undone. If nobody can answer, the option `--yes` is needed.
 *
 * @param isGiven the value of `--yes`
 * @throws HeadstartError `ABORTED` if the user does not want it, `INVALID_ARGUMENT` if nobody can answer.
 */
export async function requireConsent(call: Asker, isGiven: boolean, question: string): Promise<void> {
  if (isGiven) {
    return;
  }
  if (!call.output.isInteractive) {
    throw new HeadstartError('INVALID_ARGUMENT', `${question} Nobody can answer here: pass --yes to do it.`);
  }
  if (!(await ask(call, question))) {
    throw new HeadstartError('ABORTED', 'Nothing was changed.');
  }
}

/**
 * Asks a question with the answers yes and no.
 *
 * @throws HeadstartError `ABORTED` if the user presses Ctrl-C.
 */
export function ask(call: Asker, question: string): Promise<boolean> {
  return answerOf(call, ({ confirm }, common) => confirm({ message: question, initialValue: false, ...common }));
}

/**
 * Lets the user choose from a list.
 *
 * @returns the value of the chosen item
 * @throws HeadstartError `ABORTED` if the user presses Ctrl-C.
 */
export function choose(
  call: Asker,
  message: string,
  items: { value: string; label: string; hint: string }[],
): Promise<string> {
  return answerOf(call, ({ select }, common) => select({ message, options: items, ...common }));
}

async function answerOf<Answer>(
  { io, signal, interrupts }: Asker,
  show: (prompts: typeof Prompts, common: Prompts.CommonOptions) => Promise<Answer>,
): Promise<Exclude<Answer, symbol>> {
  const prompts = await import('@clack/prompts');
  const answer = await show(prompts, { input: io.stdin, output: io.stderr, signal });
  if (prompts.isCancel(answer)) {
    if (!signal.aborted) {
      interrupts.interrupt(); // after a signal, this would end the process at once
    }
    throw abortedError(signal);
  }
  return answer as Exclude<Answer, symbol>;
}
