// The command line. `bin/llama-headstart.mjs` calls `main`.
import { HeadstartError } from '../errors.js';
import type { AnyCommand } from './command.js';
import { readConfig } from './config-file.js';
import { exitCodeOf, failureOf } from './failure.js';
import { Interrupts } from './interrupts.js';
import { type CliIo, processIo } from './io.js';
import { resolveOptions } from './option.js';
import { isTerminal, Output, type OutputSettings } from './output.js';
import type { ParsedCall } from './program.js';
import { stepFunction } from './progress.js';
import { GLOBAL_OPTIONS, SHARED_OPTIONS } from './shared-options.js';

/** The hidden command that the scripts of `completion` call. */
const COMPLETE = '__complete';

/**
 * Runs a command line. Never rejects.
 *
 * @param argv the words after the name of the program
 * @returns the exit code: see `EXIT_CODES`
 */
export async function main(argv: readonly string[], io: CliIo = processIo()): Promise<number> {
  const interrupts = new Interrupts(io);
  // The command line may be wrong, so these settings are read before it is parsed.
  const has = (flag: string) => argv.includes(flag);
  let output = new Output(io, { json: has('--json'), quiet: has('--quiet'), verbose: has('--verbose') });
  let exitCode = 0;
  try {
    const { COMMAND_GROUPS, PARENTS } = await import('./commands.js');
    const commands = COMMAND_GROUPS.flatMap((group) => group.commands);
    if (argv[0] === COMPLETE) {
      const { complete, completionLines } = await import('./complete.js');
      completionLines(complete(argv.slice(1), commands, PARENTS)).forEach((line) => void output.print(line));
      return 0;
    }
    const { runProgram } = await import('./program.js');
    await runProgram(argv, {
      groups: COMMAND_GROUPS,
      parents: PARENTS,
      columns: output.columns,
      hasColors: !io.env.NO_COLOR && isTerminal(io.stdout, io.env),
      write: (text) => output.write(text),
      onCall: async (parsed) => {
        const prepared = await prepare(parsed, io, commands);
        output = new Output(io, prepared.settings);
        const { signal } = interrupts;
        const step = stepFunction(io, prepared.settings);
        const call = { ...prepared, io, output, signal, interrupts, step, exitCode: 0 };
        await parsed.spec.run(call);
        exitCode = call.exitCode;
      },
    });
    await output.flush();
  } catch (error) {
    exitCode = exitCodeOf(error);
    report(error, interrupts, output, io);
    await output.flush().catch(() => undefined); // standard output itself may have failed
  }
  interrupts.close();
  return interrupts.exitCode ?? exitCode;
}

/** The arguments, the options and the settings of a call. */
async function prepare({ spec, args, flags, globals }: ParsedCall, io: CliIo, commands: readonly AnyCommand[]) {
  const config = await readConfig(io, globals.config as string | undefined, SHARED_OPTIONS, commands);
  const sources = { environment: io.env, file: config.of(spec) };
  const options = resolveOptions(spec.options, { ...sources, flags });
  const file = config.of({ name: spec.name, options: GLOBAL_OPTIONS });
  const settings = resolveOptions(GLOBAL_OPTIONS, { environment: io.env, file, flags: globals });
  return { args, options, settings: settings as unknown as OutputSettings };
}

/** Prints why a command failed. An interrupted command did not fail, and a closed output can print nothing. */
function report(error: unknown, interrupts: Interrupts, output: Output, { env }: CliIo): void {
  const isAborted = HeadstartError.isInstance(error, 'ABORTED') || (error as Error | undefined)?.name === 'AbortError';
  if (interrupts.exitCode !== undefined && isAborted) {
    return;
  }
  const failure = failureOf(error);
  output.fail(failure.message);
  if (output.settings.json) {
    tryTo(() => output.print(JSON.stringify({ error: failure })));
  }
  if (error instanceof Error && (env.DEBUG || output.settings.verbose)) {
    output.printError(error.stack ?? '');
  }
}

/** Runs work whose failure changes nothing, because a failure is being reported. */
function tryTo(work: () => void): void {
  try {
    work();
  } catch {
    // A file as standard output throws when its disk is full.
  }
}
