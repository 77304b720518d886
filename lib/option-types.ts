// The types of options, as zod schemas. Each schema describes its values in words, so that error messages and the
// reference page (docs/reference/options.md) say the same.
import { z } from 'zod';
import { isObject } from './json.js';
import { definedOptions } from './options.js';

/** Maps a schema to the words that complete "Expected `x` to be ...". */
const EXPECTED = z.registry<{ text: string }>();

function worded<S extends z.ZodType>(schema: S, text: string): S {
  EXPECTED.add(schema, { text });
  return schema;
}

/**
 * The words for the values that a schema accepts. An optional schema, or one with a default, has its inner schema's
 * words.
 */
export function expectedBy(schema: z.core.$ZodType): string {
  const text = EXPECTED.get(schema)?.text;
  const { innerType } = schema._zod.def as { innerType?: z.core.$ZodType };
  if (text === undefined && innerType === undefined) {
    throw new TypeError('Expected a schema made by option-types.ts');
  }
  return text ?? expectedBy(innerType as z.core.$ZodType);
}

/** The type of options in a group with these fields, as users write them. */
export type OptionsOf<Shape extends z.core.$ZodLooseShape> = z.input<z.ZodObject<Shape, z.core.$strict>>;

/** The type of the same options after parsing, with defaults. */
export type ResolvedOf<Shape extends z.core.$ZodLooseShape> = z.output<z.ZodObject<Shape, z.core.$strict>>;

/**
 * The type of a group's schema. `Group` names the types of the values, which keeps the generated declarations readable.
 */
export type Group<Input, Output = Input> = z.ZodType<Output, Input>;

/** An object of options. Unknown names are refused. The parsed object is frozen. */
export function group<Shape extends z.core.$ZodLooseShape>(shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  const error = ({ code }: { code?: string }) => (code === 'invalid_type' ? 'an object' : undefined);
  return worded(
    z.strictObject(shape, { error }).overwrite((options) => Object.freeze(definedOptions(options)) as typeof options),
    'an object',
  );
}

/** Like {@link group}, but the object may have more fields. The object is not copied, and inherited fields count. */
export function openGroup<Shape extends z.core.$ZodLooseShape>(shape: Shape): z.ZodObject<Shape, z.core.$loose> {
  return worded(z.looseObject(shape, { error: 'an object' }), 'an object');
}

/** An integer, for example a number of tokens. @param max The default fits into llama.cpp's 32-bit counters. */
export function integer(min: number, max = 2 ** 28): z.ZodInt {
  const error = `an integer from ${min} to ${max}`;
  return worded(z.int({ error }).min(min, { error }).max(max, { error }), error);
}

/** An integer without an upper limit, for example a number of bytes, milliseconds or entries. */
export function size(): z.ZodInt {
  const error = 'an integer from 0 up';
  return worded(z.int({ error }).min(0, { error }), error);
}

export function number(min: number, max: number): z.ZodNumber {
  const error = `a number from ${min} to ${max}`;
  return worded(z.number({ error }).min(min, { error }).max(max, { error }), error);
}

export function boolean(): z.ZodBoolean {
  return worded(z.boolean({ error: 'a boolean' }), 'a boolean');
}

export function string(): z.ZodString {
  return worded(z.string({ error: 'a string' }), 'a string');
}

/** A non-empty string. */
export function text(): z.ZodString {
  const error = 'a non-empty string';
  return worded(z.string({ error }).min(1, { error }), error);
}

export function oneOf<const Values extends readonly string[]>(
  ...values: Values
): z.ZodEnum<z.core.util.ToEnum<Values[number]>> {
  const error = `one of ${values.join(', ')}`;
  return worded(z.enum(values, { error }), error);
}

export function list<Item extends z.core.$ZodType>(item: Item, expected: string): z.ZodReadonly<z.ZodArray<Item>> {
  return worded(z.array(item, { error: expected }).readonly(), expected);
}

export function strings(): z.ZodReadonly<z.ZodArray<z.ZodString>> {
  const error = 'an array of strings';
  return list(string(), error);
}

/** @param check returns undefined for a correct value, and a description of the expected value for a wrong one */
export function checked<Value>(
  check: (value: unknown) => string | undefined,
  expected: string,
): z.ZodCustom<Value, Value> {
  const error = ({ input }: { input?: unknown }) => check(input) ?? expected;
  return worded(
    z.custom<Value>((value) => check(value) === undefined, { error }),
    expected,
  );
}

/** A value of a type that zod does not know. */
export function value<Value>(isRight: (value: unknown) => boolean, expected: string): z.ZodCustom<Value, Value> {
  return checked((input) => (isRight(input) ? undefined : expected), expected);
}

export function callable<Callable>(): z.ZodCustom<Callable, Callable> {
  return value((input) => typeof input === 'function', 'a function');
}

export function abortSignal(): z.ZodCustom<AbortSignal, AbortSignal> {
  return value((input) => input instanceof AbortSignal, 'an AbortSignal');
}

export function stringMap(): z.ZodCustom<Readonly<Record<string, string>>, Readonly<Record<string, string>>> {
  return value(
    (input) => isObject(input) && Object.values(input).every((each) => typeof each === 'string'),
    'an object of strings',
  );
}

/** An http or https address without user and password: `fetch` refuses addresses that contain them. */
export function webAddress(): z.ZodCustom<string, string> {
  return value((input) => {
    const url = typeof input === 'string' && URL.canParse(input) ? new URL(input) : undefined;
    return url !== undefined && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
  }, 'an http or https address without user and password');
}

/** A value of another type, or `'auto'`. */
export function orAuto<Value extends z.ZodType>(schema: Value): z.ZodUnion<[Value, z.ZodLiteral<'auto'>]> {
  const error = `${expectedBy(schema)}, or 'auto'`;
  return worded(z.union([schema, z.literal('auto')], { error }), error);
}

/** A boolean, or an object with the options of a group. `true` means the group's defaults. */
export function switchable<Options extends z.ZodType>(options: Options): z.ZodUnion<[z.ZodBoolean, Options]> {
  const error = 'a boolean or an object';
  return worded(z.union([boolean(), options], { error }), error);
}
