// What a shell offers when the user presses Tab. The scripts in completion-scripts.ts run `llama-headstart __complete`.
import type { AnyCommand, Argument } from './command.js';
import { type Completion, flagOf, type Option, type Options, pathOption } from './option.js';
import { GLOBAL_OPTIONS } from './shared-options.js';

/** A word that may come next. */
export interface Candidate {
  word: string;
  about: string;
}

/** What may come next: some words, or the name of a file or directory. */
export interface Candidates {
  words: readonly Candidate[];
  /** The kind of names that the shell itself completes. */
  names?: 'file' | 'directory';
}

const EVERYWHERE: Options = { ...GLOBAL_OPTIONS, config: pathOption('file', 'read this configuration file') };
const HELP: Candidate = { word: '--help', about: 'print help' };

/**
 * Completes the last of the words.
 *
 * @param words the words after the name of the program; the last one is incomplete and may be empty
 * @param parents the summaries of the groups of two-word commands, by the first word
 */
export function complete(
  words: readonly string[],
  commands: readonly AnyCommand[],
  parents: Readonly<Record<string, string>>,
): Candidates {
  const last = words.at(-1) ?? '';
  const { command, path, position, pending } = read(words.slice(0, -1), commands, parents);
  if (pending !== undefined) {
    return fromCompletion(pending.completion, last);
  }
  if (last.startsWith('-')) {
    return { words: matching([...flagsOf({ ...command?.options, ...EVERYWHERE }), HELP], last) };
  }
  if (command === undefined) {
    return { words: matching(nextWords(path, commands, parents), last) };
  }
  const all: Argument[] = Object.values(command.arguments);
  const argument = all[position] ?? (all.at(-1)?.variadic ? all.at(-1) : undefined);
  return argument === undefined ? { words: [] } : fromCompletion(argument.completion, last);
}

interface Place {
  command: AnyCommand | undefined;
  /** The words of the command's name up to here. */
  path: string[];
  /** Number of arguments up to here. */
  position: number;
  /** The option whose value comes next. */
  pending: Option | undefined;
}

function read(
  words: readonly string[],
  commands: readonly AnyCommand[],
  parents: Readonly<Record<string, string>>,
): Place {
  const place: Place = { command: undefined, path: [], position: 0, pending: undefined };
  for (const word of words) {
    if (place.pending !== undefined) {
      place.pending = undefined;
    } else if (word.startsWith('-')) {
      place.pending = optionWithValue(word, { ...place.command?.options, ...EVERYWHERE });
    } else if (place.command !== undefined) {
      place.position++;
    } else {
      place.path.push(word);
      const name = place.path.join(' ');
      place.command = name in parents ? undefined : commands.find((each) => each.name === name);
    }
  }
  return place;
}

/** The option of a flag, if its value is the next word. */
function optionWithValue(word: string, options: Options): Option | undefined {
  const [, option] = Object.entries(options).find(([name]) => flagOf(name) === word) ?? [];
  return option?.placeholder === undefined ? undefined : option;
}

function nextWords(
  path: readonly string[],
  commands: readonly AnyCommand[],
  parents: Readonly<Record<string, string>>,
): Candidate[] {
  const [parent] = path;
  if (parent !== undefined) {
    const below = path.length === 1 ? commands.filter(({ name }) => name.startsWith(`${parent} `)) : [];
    return below.map(({ name, summary }) => ({ word: name.slice(parent.length + 1), about: summary }));
  }
  const single = commands
    .filter(({ name }) => !name.includes(' '))
    .map(({ name, summary }) => ({ word: name, about: summary }));
  const groups = Object.entries(parents).map(([word, about]) => ({ word, about }));
  return [...single, ...groups, { word: 'help', about: 'prints the help of a command' }];
}

function flagsOf(options: Options): Candidate[] {
  return Object.entries(options).map(([name, { about }]) => ({ word: flagOf(name), about }));
}

function fromCompletion(completion: Completion | undefined, last: string): Candidates {
  if (completion === 'file' || completion === 'directory') {
    return { words: [], names: completion };
  }
  return {
    words: matching(
      (completion ?? []).map((word) => ({ word, about: '' })),
      last,
    ),
  };
}

const matching = (candidates: readonly Candidate[], last: string): Candidate[] =>
  candidates.filter(({ word }) => word.startsWith(last));

/**
 * The answer to a shell: one candidate in each line, with its description after a tab.
 * The last line is `:file` or `:directory` if the shell completes names.
 */
export function completionLines({ words, names }: Candidates): string[] {
  const lines = words.map(({ word, about }) => (about === '' ? word : `${word}\t${about}`));
  return names === undefined ? lines : [...lines, `:${names}`];
}
