// The options of commands. One declaration gives an option its flag, its check, its name in the configuration file, and
// its description in `--help`, in the guide and in the completions.
import type { z } from 'zod';
import { HeadstartError } from '../errors.js';
import { boolean, expectedBy, oneOf, strings, text, value } from '../option-types.js';
import { describe } from '../options.js';

/** What a shell offers as the value of an option or argument. */
export type Completion = 'file' | 'directory' | readonly string[];

/** An option of a command. @typeParam Value the type of the value that the command gets */
export interface Option<Value = unknown> {
  /** What the option does, for `--help` and the guide. */
  about: string;
  /** What follows the flag, for example `port`. Absent for a switch. */
  placeholder?: string;
  /** Checks a value, even one from the configuration file, and describes the expected value for error messages. */
  schema: z.ZodType;
  /** Converts the text after a flag or of an environment variable. The schema checks the result. */
  read(text: string): unknown;
  /** Converts a checked value to the value that the command gets. */
  convert?(value: unknown): unknown;
  /** The value if the option is absent everywhere. */
  default?: Value;
  /** How `--help` and the guide describe the default, if the value itself does not explain it. */
  defaultAbout?: string;
  /** Whether the flag may occur several times. The value is then a list. */
  isRepeatable?: boolean;
  /** Whether the value is a path. A relative path in the configuration file is relative to that file. */
  isPath?: boolean;
  /** The environment variable that sets the option. */
  environment?: string;
  /**
   * Whether the configuration file may set the option. The file cannot set options that run programs or skip a
   * question, because a folder from somebody else may contain a configuration file.
   */
  isConfigurable: boolean;
  completion?: Completion;
}

/** The options of a command by their names: `contextSize` has the flag `--context-size`. */
export type Options = Readonly<Record<string, Option>>;

/** The values of options, with their defaults. */
export type OptionValues<Table extends Options> = {
  readonly [Name in keyof Table]: Table[Name] extends Option<infer Value> ? Value : never;
};

/** Settings that the functions below accept. */
export interface OptionSettings<Value> {
  default?: Value;
  defaultAbout?: string;
  environment?: string;
  /** @default true */
  isConfigurable?: boolean;
  completion?: Completion;
}

type ValueOf<Value, Settings> = Settings extends { default: Value } ? Value : Value | undefined;

function option(about: string, schema: z.ZodType, read: Option['read'], settings: object): Option<never> {
  return { about, schema, read, isConfigurable: true, ...settings };
}

/** A switch: `--json`. A name that begins with `no` has a flag like `--no-browser`. */
export function flag(about: string, settings: Omit<OptionSettings<boolean>, 'default'> = {}): Option<boolean> {
  const read = (word: string) => (/^(1|true|yes)$/i.test(word) ? true : /^(0|false|no)$/i.test(word) ? false : word);
  return option(about, boolean(), read, { default: false, ...settings });
}

/** A text: `--host ADDRESS`. */
export function textOption<const Settings extends OptionSettings<string>>(
  placeholder: string,
  about: string,
  settings?: Settings,
): Option<ValueOf<string, Settings>> {
  return option(about, text(), (word) => word, { placeholder, ...settings });
}

/** The path of a file or directory. */
export function pathOption<const Settings extends OptionSettings<string>>(
  placeholder: string,
  about: string,
  settings?: Settings,
): Option<ValueOf<string, Settings>> {
  return option(about, text(), (word) => word, { placeholder, isPath: true, completion: 'file', ...settings });
}

/** A number: `--port NUMBER`. @param schema `integer` or `number` of option-types.ts */
export function numberOption<const Settings extends OptionSettings<number>>(
  placeholder: string,
  schema: z.ZodType,
  about: string,
  settings?: Settings,
): Option<ValueOf<number, Settings>> {
  const read = (word: string) => (word.trim() === '' ? word : Number(word));
  return option(about, schema, read, { placeholder, ...settings });
}

/** One of several words. */
export function choiceOption<
  const Words extends readonly string[],
  const Settings extends OptionSettings<Words[number]>,
>(placeholder: string, words: Words, about: string, settings?: Settings): Option<ValueOf<Words[number], Settings>> {
  return option(about, oneOf(...words), (word) => word, { placeholder, completion: words, ...settings });
}

/** A flag that may occur several times: `--file A --file B`. */
export function listOption(
  placeholder: string,
  about: string,
  settings: Omit<OptionSettings<readonly string[]>, 'default'> & { isPath?: boolean } = {},
): Option<readonly string[]> {
  return option(about, strings(), (word) => word, { placeholder, isRepeatable: true, default: [], ...settings });
}

const SIZES: Units = { '': 1, B: 1, K: 1e3, KB: 1e3, M: 1e6, MB: 1e6, G: 1e9, GB: 1e9, T: 1e12, TB: 1e12 };
const TIMES: Units = { MS: 1, S: 1e3, M: 60e3, H: 3600e3, D: 86_400e3, W: 604_800e3 };

/** The factors of units, by their names in capitals. */
type Units = Readonly<Record<string, number>>;

/** A number of bytes: `--max-bytes 20GB`. */
export function bytesOption(about: string): Option<number | undefined> {
  return unitOption('size', about, SIZES, 'a size such as 500MB or 20GB');
}

/** A duration in ms: `--max-age 30d`. */
export function durationOption(about: string): Option<number | undefined> {
  return unitOption('time', about, TIMES, 'a duration such as 90s, 12h or 30d');
}

function unitOption(placeholder: string, about: string, units: Units, expected: string): Option<number | undefined> {
  const schema = value((input) => withUnit(input, units) !== undefined, expected);
  return option(about, schema, (word) => word, { placeholder, convert: (input: unknown) => withUnit(input, units) });
}

/** @returns undefined if the value is no number with a known unit */
function withUnit(input: unknown, units: Units): number | undefined {
  const [, digits, unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(String(input)) ?? [];
  const factor = units[unit.toUpperCase()];
  return digits === undefined || factor === undefined ? undefined : Math.round(Number(digits) * factor);
}

/** Where the value of an option came from, for error messages. */
interface Given {
  value: unknown;
  /** The value as the user wrote it. */
  written: unknown;
  /** Completes "Expected ... to be": `--port`, or a variable. */
  where: string;
}

/** The sources of the values of a command's options. */
export interface OptionSources {
  /** The values after the flags, by the names of the options. Switches are true. */
  flags: Readonly<Record<string, unknown>>;
  environment: NodeJS.ProcessEnv;
  /** The values of the configuration file. They are already checked, and paths are absolute. */
  file: Readonly<Record<string, unknown>>;
}

/**
 * Determines the values of options: from flags, else from the environment, else from the configuration file, else the
 * defaults.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function resolveOptions(table: Options, sources: OptionSources): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([name, each]) => [name, resolveOption(name, each, sources)]));
}

function resolveOption(name: string, option: Option, { flags, environment, file }: OptionSources): unknown {
  const given = flags[name] === undefined ? fromEnvironment(option, environment) : fromFlag(name, option, flags[name]);
  const value = given === undefined ? file[name] : checkedValue(option, given);
  if (value === undefined) {
    return option.default;
  }
  return option.convert === undefined ? value : option.convert(value);
}

function fromFlag(name: string, { read }: Option, value: unknown): Given {
  const words = Array.isArray(value)
    ? value.map((word) => read(word))
    : typeof value === 'string'
      ? read(value)
      : value;
  return { value: words, written: value, where: flagOf(name) };
}

function fromEnvironment({ environment: variable, read }: Option, environment: NodeJS.ProcessEnv): Given | undefined {
  const word = variable === undefined ? undefined : environment[variable];
  return word ? { value: read(word), written: word, where: `the environment variable ${variable}` } : undefined;
}

function checkedValue({ schema }: Option, { value, written, where }: Given): unknown {
  const { success } = schema.safeParse(value);
  if (!success) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected ${where} to be ${expectedBy(schema)}, got ${describe(written)}.`,
    );
  }
  return value;
}

/** The flag of an option: `--context-size` for `contextSize`. */
export function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** The description of an option, with its default and its environment variable. */
export function aboutOf({
  about,
  placeholder,
  default: value,
  defaultAbout,
  isRepeatable,
  environment,
}: Option): string {
  const hasDefault = placeholder !== undefined && !isRepeatable && value !== undefined;
  const fallback = defaultAbout ?? (hasDefault ? String(value) : undefined);
  const notes = [
    ...(isRepeatable ? ['repeatable'] : []),
    ...(environment === undefined ? [] : [`environment: ${environment}`]),
    ...(fallback === undefined ? [] : [`default: ${fallback}`]),
  ];
  return notes.length === 0 ? about : `${about} (${notes.join(', ')})`;
}
