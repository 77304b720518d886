// Creates the parser of the command line from the descriptions of the commands.
import { Command, CommanderError, Option as Flag, type Help, Argument as Positional } from 'commander';
import { wrapAnsi } from 'fast-wrap-ansi';
import { HeadstartError } from '../errors.js';
import { packageVersion } from '../native/places.js';
import type { AnyCommand, Arguments } from './command.js';
import { aboutOf, flagOf, type Option } from './option.js';
import { GLOBAL_OPTIONS } from './shared-options.js';

/** A command as the user called it. */
export interface ParsedCall {
  spec: AnyCommand;
  args: Record<string, string | readonly string[] | undefined>;
  /** The values after the flags of the command. */
  flags: Record<string, unknown>;
  /** The values after the flags of every command. */
  globals: Record<string, unknown>;
}

/** A heading with commands below it, in `--help` and in the guide. */
export interface CommandGroup {
  title: string;
  commands: readonly AnyCommand[];
}

interface ProgramOptions {
  groups: readonly CommandGroup[];
  /** The summaries of the groups of two-word commands, by the first word, for example `cache`. */
  parents: Readonly<Record<string, string>>;
  columns: number;
  hasColors: boolean;
  write(text: string): void;
  onCall(call: ParsedCall): Promise<void>;
}

const INDENT = '      ';
const PROGRAM = 'llama-headstart';
/** In narrower terminals, the description of an option begins on a new line. */
const MIN_COLUMNS_FOR_TABLES = 60;

/**
 * Parses the command line and runs its command.
 *
 * @throws HeadstartError `INVALID_ARGUMENT` for a wrong command line, and the errors of the command.
 */
export async function runProgram(argv: readonly string[], options: ProgramOptions): Promise<void> {
  const program = makeProgram(options);
  const words = argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv.length === 0 ? ['--help'] : argv;
  try {
    await program.parseAsync([...words], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) {
      throw error;
    }
    if (error.exitCode !== 0) {
      throw usageError(error);
    }
  }
}

function usageError({ code, message }: CommanderError): HeadstartError {
  if (code === 'commander.help') {
    return new HeadstartError('INVALID_ARGUMENT', `Expected a command. \`${PROGRAM} --help\` lists the commands.`);
  }
  const words = message.replace(/^error: /, '').replace(/\n\((.*)\)$/, '. $1');
  return new HeadstartError('INVALID_ARGUMENT', `${words.charAt(0).toUpperCase()}${words.slice(1)}`);
}

function makeProgram(options: ProgramOptions): Command {
  const program = configured(new Command(PROGRAM), options)
    .description('llama.cpp agents whose sessions start warm.')
    .version(packageVersion, '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print this help, or that of a command')
    .helpCommand(false)
    .usage('<command> [options]');
  addOptions(program, GLOBAL_OPTIONS);
  program.addOption(new Flag('--config <file>', 'read this configuration file'));
  const parents = new Map<string, Command>();
  for (const { title, commands } of options.groups) {
    program.commandsGroup(title);
    for (const spec of commands) {
      const [first = '', second] = spec.name.split(' ');
      const parent = second === undefined ? program : (parents.get(first) ?? addParent(program, first, options));
      parents.set(first, parent);
      addCommand(parent, second ?? first, spec, options);
    }
  }
  return program;
}

/** Adds a command that only has other commands below it. */
function addParent(program: Command, name: string, options: ProgramOptions): Command {
  return configured(program.command(name), options)
    .description(options.parents[name] ?? '')
    .usage('<command> [options]');
}

function addCommand(parent: Command, name: string, spec: AnyCommand, options: ProgramOptions): void {
  const command = configured(parent.command(name), options)
    .summary(spec.summary)
    .description(
      [`${spec.summary.charAt(0).toUpperCase()}${spec.summary.slice(1)}.`, ...(spec.details ?? [])].join('\n\n'),
    );
  for (const [key, { about, optional, variadic }] of Object.entries(spec.arguments as Arguments)) {
    const shown = `${key}${variadic ? '...' : ''}`;
    command.addArgument(new Positional(optional ? `[${shown}]` : `<${shown}>`, about));
  }
  addOptions(command, spec.options);
  const lines = spec.examples.map(({ line, about }) => `  ${PROGRAM} ${line}\n${indented(about, options.columns)}`);
  command.addHelpText('after', `\nExamples:\n${lines.join('\n')}`);
  command.action(async (...received: unknown[]) => {
    const names = Object.keys(spec.arguments);
    await options.onCall({
      spec,
      args: Object.fromEntries(names.map((key, index) => [key, received[index] as string])),
      flags: flagsOf(command, spec.options),
      globals: rootOf(command).opts(),
    });
  });
}

/** The settings of every command. */
function configured(command: Command, { columns, hasColors, write }: ProgramOptions): Command {
  return command
    .exitOverride()
    .allowExcessArguments(false)
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: write,
      writeErr: () => undefined, // the error is thrown, and printed by `main`
      getOutHelpWidth: () => columns,
      getErrHelpWidth: () => columns,
      getOutHasColors: () => hasColors,
      getErrHasColors: () => hasColors,
    })
    .configureHelp({
      showGlobalOptions: true,
      minWidthToWrap: 20,
      ...(columns < MIN_COLUMNS_FOR_TABLES && { formatItem }),
    });
}

/** A text below an item of `--help`. */
function indented(text: string, columns: number): string {
  return wrapAnsi(text, columns - INDENT.length, { trim: true }).replace(/^/gm, INDENT);
}

/** An item of `--help` for narrow terminals: a term, and its description below it. */
function formatItem(this: Help, term: string, _width: number, description: string, helper: Help): string {
  return description === ''
    ? `  ${term}`
    : `  ${term}\n${indented(description, helper.helpWidth ?? MIN_COLUMNS_FOR_TABLES)}`;
}

function addOptions(command: Command, options: Readonly<Record<string, Option>>): void {
  for (const [name, option] of Object.entries(options)) {
    const { placeholder, isRepeatable } = option;
    const flag = new Flag(
      placeholder === undefined ? flagOf(name) : `${flagOf(name)} <${placeholder}>`,
      aboutOf(option),
    );
    if (isRepeatable) {
      flag.argParser((word, before: readonly string[] | undefined) => [...(before ?? []), word]);
    }
    command.addOption(flag);
  }
}

/** The values after flags. A flag such as `--no-browser` gives commander's name `browser` the value false. */
function flagsOf(command: Command, options: Readonly<Record<string, Option>>): Record<string, unknown> {
  const values = command.opts();
  return Object.fromEntries(
    Object.keys(options).map((name) => {
      const [, negated] = /^no([A-Z].*)$/.exec(name) ?? [];
      return negated === undefined
        ? [name, values[name]]
        : [name, values[`${negated.charAt(0).toLowerCase()}${negated.slice(1)}`] === false ? true : undefined];
    }),
  );
}

function rootOf(command: Command): Command {
  return command.parent === null ? command : rootOf(command.parent);
}
