// The description of a command. The parser, `--help`, the page of the guide and the completions come from it.

import type { Interrupts } from './interrupts.js';
import type { CliIo } from './io.js';
import type { Completion, Options, OptionValues } from './option.js';
import type { Output } from './output.js';
import type { StepFunction } from './progress.js';

/** An argument of a command. */
export interface Argument {
  /** What the argument is, for `--help` and the guide. */
  about: string;
  /** Whether the argument may be absent. */
  optional?: boolean;
  /** Whether the command takes any number of these arguments, and at least one if not `optional`. Only the last one. */
  variadic?: boolean;
  completion?: Completion;
}

/** The arguments of a command by their names, in their order. */
export type Arguments = Readonly<Record<string, Argument>>;

/** The values of arguments. */
export type ArgumentValues<Table extends Arguments> = {
  readonly [Name in keyof Table]: Table[Name] extends { variadic: true }
    ? readonly string[]
    : Table[Name] extends { optional: true }
      ? string | undefined
      : string;
};

/** An example for `--help` and the guide. */
export interface Example {
  /** The command line without the name of the program: `serve model.gguf --port 9000`. */
  line: string;
  about: string;
}

/** One run of a command. */
export interface Call<Args extends Arguments = Arguments, Table extends Options = Options> {
  readonly args: ArgumentValues<Args>;
  /** The options, from flags, the environment, the configuration file and the defaults. */
  readonly options: OptionValues<Table>;
  readonly io: CliIo;
  /** Writes results to standard output, and notes to standard error. */
  readonly output: Output;
  /**
   * Aborts when the user interrupts the command, the process receives another signal to end, or the reader of
   * standard output closes it.
   * The command then closes what it has opened, and returns or throws.
   */
  readonly signal: AbortSignal;
  readonly interrupts: Interrupts;
  /** Runs a step that may take longer than a second, and shows its progress on standard error. */
  readonly step: StepFunction;
  /** The exit code if the command does not fail. @default 0 */
  exitCode: number;
}

/** The description of a command. */
export interface CommandSpec<Args extends Arguments = Arguments, Table extends Options = Options> {
  /** One or two words: `serve`, `cache list`. */
  name: string;
  /** One sentence without a full stop, which completes "The command ...": `lists the cached templates`. */
  summary: string;
  /** Further paragraphs. @default none */
  details?: readonly string[];
  arguments: Args;
  options: Table;
  examples: readonly Example[];
  /** The fields of the object that `--json` prints. Absent if the command has no JSON output. */
  json?: Readonly<Record<string, string>>;
  /** The meaning of the exit codes that only this command has. */
  exitCodes?: Readonly<Record<number, string>>;
  /** Runs the command. Loads the layers that it needs by `import()`, so that `--help` is fast. */
  run(call: Call<Args, Table>): Promise<void>;
}

/** A command whose arguments and options have any types. */
// biome-ignore lint/suspicious/noExplicitAny: a list of commands cannot name the types of each one
export type AnyCommand = CommandSpec<any, any>;

/** Declares a command. Infers the types that `run` gets. */
export function command<const Args extends Arguments, const Table extends Options>(
  spec: CommandSpec<Args, Table>,
): CommandSpec<Args, Table> {
  return spec;
}
