// Checks options against their schema. Error messages name the expected and the received value.
import type { z } from 'zod';
import { type ErrorCode, HeadstartError } from './errors.js';
import { isObject } from './json.js';
import { definedOptions, describe, type Place, suggestionFor } from './options.js';

/** The names and the code that error messages use. */
export interface ParseContext {
  /** Names the object that has the options, for example "the options" or "`model`". */
  where: string;
  /** @default 'CONFIG_INVALID' */
  code?: ErrorCode;
  /** Other objects to which an unknown option may belong, the most likely first. */
  places?: readonly Place[] | ((group: string | undefined) => readonly Place[]);
}

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/**
 * Checks options, fills in the defaults of their schema and freezes the result.
 *
 * @throws HeadstartError with the code of `context`, or `INVALID_ARGUMENT` for an error inside `sampling`.
 */
export function parseOptions<Schema extends z.ZodType>(
  schema: Schema,
  options: unknown,
  context: ParseContext,
): z.output<Schema> {
  const result = schema.safeParse(options);
  if (!result.success) {
    throw problem(firstOf(result.error.issues, options), schema, options, context);
  }
  return result.data;
}

/**
 * Checks options and freezes them. Does not fill in defaults, because a default of a call would override the same
 * option of the session or the agent.
 *
 * @throws HeadstartError the codes of {@link parseOptions}.
 */
export function checkedOptions<Input extends object>(
  schema: z.ZodType<unknown, Input>,
  options: Input,
  context: ParseContext,
): Input {
  parseOptions(schema, options, context);
  return Object.freeze(definedOptions(options));
}

/** The issue to report. Unknown names come first, because a misspelled name also causes other issues. */
function firstOf(issues: readonly Issue[], options: unknown): Issue {
  const flat = issues.map((issue) => insideUnion(issue, options));
  const unknown = flat.filter(({ code }) => code === 'unrecognized_keys');
  unknown.sort((a, b) => a.path.length - b.path.length);
  return (unknown[0] ?? flat[0]) as Issue;
}

/** If the option may be a boolean or an object, and an object was received, returns the issue inside that object. */
function insideUnion(issue: Issue, options: unknown): Issue {
  if (issue.code !== 'invalid_union' || !isObject(valueAt(options, issue.path))) {
    return issue;
  }
  const inside = issue.errors.flat().find(({ code, path }) => code === 'unrecognized_keys' || path.length > 0);
  return inside === undefined ? issue : { ...inside, path: [...issue.path, ...inside.path] };
}

function problem(issue: Issue, schema: z.core.$ZodType, options: unknown, context: ParseContext): HeadstartError {
  const { path } = issue;
  const code = path[0] === 'sampling' ? 'INVALID_ARGUMENT' : (context.code ?? 'CONFIG_INVALID');
  if (issue.code === 'unrecognized_keys') {
    const [name = ''] = issue.keys;
    const { places = [] } = context;
    const elsewhere = typeof places === 'function' ? places(path[0]?.toString()) : places;
    const suggestion = suggestionFor(name, namesAt(schema, path), elsewhere);
    return new HeadstartError(code, `Unknown option \`${name}\` in ${placeOf(path, context.where, 0)}${suggestion}`);
  }
  const option = placeOf(path, context.where, 1);
  return new HeadstartError(code, `Expected ${option} to be ${issue.message}, got ${describe(valueAt(options, path))}`);
}

/**
 * Names an option's place, the innermost name first: "`base` in `dry` in `sampling`". Omits `outermost` if the path
 * names a group and `outermost` is only a description such as "the options".
 *
 * @param options the number of names at the end of the path that are options and not groups
 */
function placeOf(path: Path, outermost: string, options: 0 | 1): string {
  const names: string[] = [];
  for (const key of path) {
    if (typeof key === 'number') {
      names[names.length - 1] += `[${key}]`;
    } else {
      names.push(String(key));
    }
  }
  const quoted = names.reverse().map((name) => `\`${name}\``);
  const isNamed = quoted.length > options && !outermost.startsWith('`');
  return [...quoted, ...(isNamed ? [] : [outermost])].join(' in ');
}

function valueAt(options: unknown, path: Path): unknown {
  return path.reduce((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], options);
}

/** The names of the options in the group at this path. */
function namesAt(schema: z.core.$ZodType, path: Path): readonly string[] {
  const { innerType, element, options, shape } = schema._zod.def as {
    innerType?: z.core.$ZodType;
    element?: z.core.$ZodType;
    options?: readonly z.core.$ZodType[];
    shape?: z.core.$ZodShape;
  };
  if (innerType !== undefined) {
    return namesAt(innerType, path);
  }
  if (options !== undefined) {
    return options.flatMap((each) => namesAt(each, path));
  }
  const [key, ...rest] = path;
  const next = element ?? shape?.[key as string];
  return key === undefined || next === undefined ? Object.keys(shape ?? {}) : namesAt(next, rest);
}
