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

/** The state of a running command line. */
interface Progress {
  output: Output;
  exitCode: number;
}

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
  const settings = { json: has('--json'), quiet: has('--quiet'), verbose: has('--verbose') };
  const progress: Progress = { output: new Output(io, settings), exitCode: 0 };
  try {
    const [first, ...words] = argv;
    await (first === COMPLETE ? printCompletions(words, progress) : runCommand(argv, io, interrupts, progress));
    await progress.output.flush();
  } catch (error) {
    progress.exitCode = exitCodeOf(error);
    report(error, interrupts, progress.output, io);
    await progress.output.flush().catch(() => undefined); // standard output itself may have failed
  }
  interrupts.close();
  return interrupts.exitCode ?? progress.exitCode;
}

async function printCompletions(words: readonly string[], { output }: Progress): Promise<void> {
  const { COMMAND_GROUPS, PARENTS } = await import('./commands.js');
  const { complete, completionLines } = await import('./complete.js');
  const commands = COMMAND_GROUPS.flatMap((group) => group.commands);
  for (const line of completionLines(complete(words, commands, PARENTS))) {
    output.print(line);
  }
}

async function runCommand(argv: readonly string[], io: CliIo, interrupts: Interrupts, progress: Progress) {
  const { COMMAND_GROUPS, PARENTS } = await import('./commands.js');
  const { runProgram } = await import('./program.js');
  const commands = COMMAND_GROUPS.flatMap((group) => group.commands);
  await runProgram(argv, {
    groups: COMMAND_GROUPS,
    parents: PARENTS,
    columns: progress.output.columns,
    hasColors: !io.env.NO_COLOR && isTerminal(io.stdout, io.env),
    write: (text) => progress.output.write(text),
    onCall: async (parsed) => {
      const { settings, ...prepared } = await prepare(parsed, io, commands);
      const output = new Output(io, settings);
      progress.output = output;
      const { signal } = interrupts;
      const call = { ...prepared, io, output, signal, interrupts, step: stepFunction(io, settings), exitCode: 0 };
      await parsed.spec.run(call);
      progress.exitCode = call.exitCode;
    },
  });
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

/** Prints why a command failed. Prints nothing about an interrupted command. */
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

/** Runs work and ignores its failure, because another failure is being reported. */
function tryTo(work: () => void): void {
  try {
    work();
  } catch {
    // If standard output is a file on a full disk, the write throws.
  }
}
