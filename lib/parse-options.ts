// Options are parsed where they come in: by their schema, with a message that says what was expected and what was received.
import type { z } from 'zod';
import { type ErrorCode, HeadstartError } from './errors.js';
import { isObject } from './option-types.js';
import { describe, given, hint, type Place } from './options.js';

/** How the options are called in messages. */
export interface ParseContext {
  /** What holds the options: "the options", "`model`". */
  where: string;
  /** @default 'CONFIG_INVALID' */
  code?: ErrorCode;
  /** Where an unknown option may belong, the nearest place first. */
  places?: readonly Place[] | ((group: string | undefined) => readonly Place[]);
}

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/**
 * Options with the defaults of their schema in place, frozen.
 *
 * @throws HeadstartError with the code of `context`, or `INVALID_ARGUMENT` for what is wrong inside of `sampling`.
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
 * Options as they were given, frozen and without defaults: those of a layer that others go over.
 *
 * @throws HeadstartError as {@link parseOptions}.
 */
export function checkedOptions<Input extends object>(
  schema: z.ZodType<unknown, Input>,
  options: Input,
  context: ParseContext,
): Input {
  parseOptions(schema, options, context);
  return Object.freeze(given(options));
}

/** Unknown names first: with a misspelled name, what is missing or wrong besides is seldom the mistake. */
function firstOf(issues: readonly Issue[], options: unknown): Issue {
  const flat = issues.map((issue) => insideUnion(issue, options));
  const unknown = flat.filter(({ code }) => code === 'unrecognized_keys');
  unknown.sort((a, b) => a.path.length - b.path.length);
  return (unknown[0] ?? flat[0]) as Issue;
}

/** An option may be a boolean or an object: of an object, the message says what is wrong inside it. */
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
    const suggestion = hint(name, namesAt(schema, path), elsewhere);
    return new HeadstartError(code, `Unknown option \`${name}\` in ${placeOf(path, context.where, 0)}${suggestion}`);
  }
  const option = placeOf(path, context.where, 1);
  return new HeadstartError(code, `Expected ${option} to be ${issue.message}, got ${describe(valueAt(options, path))}`);
}

/**
 * "`base` in `dry` in `sampling`": innermost first.
 *
 * @param options how many of the names are options, not groups: the name of one group is enough to say where it is
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

/** The options that the group at this place has. */
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
