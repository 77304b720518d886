// Rewrites the schemas of numbers and strings for llama.cpp's converter to grammars.
import type { JsonObject } from '../../json.js';
import type { PatternGrammar } from './pattern-grammar.js';
import { patternsOf } from './schema-intersection.js';

/** The result of converting a schema that no value fits. */
export class Unsatisfiable {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

/**
 * The bound of integers in grammars. The grammar allows integers beyond 2^53, which are refused after generation. A
 * smaller bound would end such a number after its first digits, and the wrong number would not be noticed.
 */
const LARGE_BOUND = 1e17;
/** llama.cpp treats a larger count of repetitions as unlimited. */
export const MAX_REPETITIONS = 2000;
/** Maximum number of multiples that the grammar lists. */
const MAX_MULTIPLES = 256;

interface Bounds {
  min: number;
  max: number;
}

/**
 * Gives the converter exactly one lower and one upper bound. The converter confuses two lower bounds, and miscounts
 * digits if there is no upper bound.
 */
export function integerForGrammar(schema: JsonObject): JsonObject | Unsatisfiable {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const min = Math.max(Math.ceil(numberOr(minimum, -Infinity)), Math.floor(numberOr(exclusiveMinimum, -Infinity)) + 1);
  const max = Math.min(Math.floor(numberOr(maximum, Infinity)), Math.ceil(numberOr(exclusiveMaximum, Infinity)) - 1);
  if (min > max) {
    return new Unsatisfiable('`minimum` is above `maximum`');
  }
  if (min > Number.MAX_SAFE_INTEGER || max < Number.MIN_SAFE_INTEGER) {
    return new Unsatisfiable('its integers are beyond 2^53, which JavaScript cannot hold exactly');
  }
  const hasMin = min > Number.MIN_SAFE_INTEGER;
  const hasMax = max < Number.MAX_SAFE_INTEGER;
  return hasMin || hasMax
    ? { type: 'integer', minimum: hasMin ? min : -LARGE_BOUND, maximum: hasMax ? max : LARGE_BOUND }
    : { type: 'integer' };
}

/** Leaves out the bounds of fractions, because grammars cannot enforce them. */
export function numberForGrammar(schema: JsonObject): JsonObject | Unsatisfiable {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf } = schema;
  const above = numberOr(exclusiveMinimum, -Infinity);
  const below = numberOr(exclusiveMaximum, Infinity);
  const low = Math.max(numberOr(minimum, -Infinity), above);
  const high = Math.min(numberOr(maximum, Infinity), below);
  if (low > high || (low === high && (low === above || high === below))) {
    return new Unsatisfiable('`minimum` is above `maximum`');
  }
  return Number.isInteger(multipleOf) ? integerForGrammar(schema) : { type: 'number' };
}

/** Lists the multiples within the bounds if they are few. A rounding error may add a number that is not a multiple. */
export function multiplesOf(schema: JsonObject): number[] | undefined {
  const { multipleOf, minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const low = Math.max(numberOr(minimum, -Infinity), numberOr(exclusiveMinimum, -Infinity));
  const high = Math.min(numberOr(maximum, Infinity), numberOr(exclusiveMaximum, Infinity));
  const step = numberOr(multipleOf, 0);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return step > 0 && count <= MAX_MULTIPLES
    ? Array.from({ length: Math.max(0, count) }, (_, index) => Number(((first + index) * step).toPrecision(15)))
    : undefined;
}

/** The possible lengths of strings, for each format that the converter enforces. */
const FORMATS: Readonly<Record<string, Bounds>> = {
  date: { min: 10, max: 10 },
  uuid: { min: 36, max: 36 },
  time: { min: 9, max: 18 },
  'date-time': { min: 20, max: 29 },
};

/** @param patternGrammar rewrites the patterns. If undefined, patterns are left out. */
export function stringForGrammar(
  schema: JsonObject,
  patternGrammar: PatternGrammar | undefined,
): JsonObject | Unsatisfiable {
  const { format } = schema;
  const patterns = patternsOf(schema);
  const lengths = { min: numberOr(schema.minLength, 0), max: numberOr(schema.maxLength, Number.POSITIVE_INFINITY) };
  if (lengths.min > lengths.max) {
    return new Unsatisfiable('`minLength` is above `maxLength`');
  }
  if (patterns.length > 0 && patternGrammar !== undefined) {
    const pattern = patternGrammar.rewrite(patterns, lengths);
    if (pattern === '') {
      return new Unsatisfiable('no string fits its `pattern` and length');
    }
    if (pattern !== undefined) {
      return pattern === '^$' ? { type: 'string', const: '' } : { type: 'string', pattern };
    }
  }
  const enforced = typeof format === 'string' && Object.hasOwn(FORMATS, format) ? FORMATS[format] : undefined;
  if (enforced !== undefined && enforced.min >= lengths.min && enforced.max <= lengths.max && patterns.length === 0) {
    return { type: 'string', format };
  }
  return {
    type: 'string',
    ...(lengths.min > 0 && lengths.min <= MAX_REPETITIONS && { minLength: lengths.min }),
    ...(lengths.max <= MAX_REPETITIONS && { maxLength: lengths.max }),
  };
}

export function numberOr(value: unknown, otherwise: number): number {
  return typeof value === 'number' ? value : otherwise;
}
