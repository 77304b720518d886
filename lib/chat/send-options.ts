import { REPETITION_GUARD_OPTIONS, type RepetitionGuardOptions } from '../generate/repetition-guard.js';
import type { ResponseFormat } from '../generate/response-format.js';
import { IN_SAMPLING } from '../generate/sampling.js';
import { isObject } from '../json.js';
import {
  abortSignal,
  boolean,
  callable,
  type Group,
  group,
  integer,
  type OptionsOf,
  type ResolvedOf,
  switchable,
  text,
  value,
} from '../option-types.js';
import { definedOptions, type Place } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { SAMPLING_OPTIONS, type SamplingOptions } from '../sampling-options.js';
import type { Schema } from '../tools/schemas/schema.js';
import type { ToolChoice } from '../tools/tool.js';
import type { ToolCallHook } from '../tools/tool-call-hook.js';

const MAX_STOPS = 64;
const MAX_STOP_LENGTH = 1024;
/** A day, in ms. `setTimeout` overflows after 24 days. */
const MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000;

export const GENERATION = {
  /** Maximum number of tokens of one reply. @default as many as fit into the context */
  maxTokens: value<number>(
    (input) => input === Number.POSITIVE_INFINITY || (Number.isSafeInteger(input) && (input as number) >= 1),
    'an integer from 1 up',
  ).optional(),
  /** Sampling options. Each one overrides the same option of the session, the agent and the model. */
  sampling: SAMPLING_OPTIONS.optional(),
  /**
   * Texts that end a reply: at most 64, each of up to 1,024 characters. The reply does not include the stop string that
   * ended it, and no part of that stop string is streamed. Only the text of the reply is searched, not reasoning, tool
   * calls or markup. In a completion (`complete`), everything is searched. @default none
   */
  stop: value<string | readonly string[]>(
    (input) => stopsOf(input) !== undefined,
    `up to ${MAX_STOPS} non-empty strings of whole characters`,
  ).optional(),
  /** Ends a reply that repeats itself, with finish reason `length`. @default false */
  repetitionGuard: switchable(REPETITION_GUARD_OPTIONS as Group<RepetitionGuardOptions>).optional(),
  /**
   * Number of most likely tokens to report at each position of the reply, with their log-probabilities, 0 to 100.
   * @default none: no log-probabilities are reported
   */
  logProbabilities: integer(0, 100).optional(),
  /**
   * Time limit in ms, measured from the call. When the limit is reached, the text so far is returned with the finish
   * reason `aborted`. If there is no token yet, the turn fails with `ABORTED`. @default none
   */
  timeoutMs: integer(1, MAX_TIMEOUT_MS).optional(),
  /** Aborts the turn, with `ABORTED`. The session remains usable. */
  signal: abortSignal().optional(),
};

/** Options for the generation of a reply. */
export interface GenerationOptions extends OptionsOf<typeof GENERATION> {}

export const TOOL_CALLS = {
  /** Which tools the model may or must call. @default 'auto' */
  toolChoice: value<ToolChoice>(
    (input) =>
      ['auto', 'required', 'none'].includes(input as string) || (isObject(input) && typeof input.name === 'string'),
    'auto, required, none or { name }',
  ).default('auto'),
  /** Whether one reply may have several tool calls. Always false if `maxParallelTools` is 1. @default true */
  parallelToolCalls: boolean().default(true),
  /**
   * Maximum number of replies in one turn, 1 to 1,000. A turn continues after a reply with tool calls, and after a
   * reply that does not match `responseFormat`. @default 16
   */
  maxSteps: integer(1, 1000).default(16),
  /**
   * Maximum number of tool calls that run at the same time, 1 to 64. With 1, each reply has at most one call.
   * @default 4
   */
  maxParallelTools: integer(1, 64).default(4),
  /** Time limit of one tool call in ms. The time of `onToolCall` is not counted. @default 60000 */
  toolTimeoutMs: integer(1, MAX_TIMEOUT_MS).default(60_000),
  /**
   * Maximum length of a tool result in characters. Longer results are cut. @default as many characters as the context
   * has tokens, which fill about a quarter of the context
   */
  maxToolResultLength: integer(1).optional(),
  /**
   * Called before a tool runs. The function approves, changes or refuses the call. Only the time limit of the turn
   * applies to the function, so the function may ask a person.
   */
  onToolCall: callable<ToolCallHook>().optional(),
};

/** Options for tool calls. */
export interface ToolOptions extends OptionsOf<typeof TOOL_CALLS> {}

const TOOL_CALL_OPTIONS = group(TOOL_CALLS);

export const SEND = {
  ...GENERATION,
  ...TOOL_CALLS,
  /**
   * Whether the model reasons in front of its reply. Has an effect only if the chat template can switch reasoning on
   * and off. @default true
   */
  reasoning: boolean().default(true),
  /**
   * The reply must be JSON that matches a schema. The model cannot call tools in this turn, unless `allowTools` is set.
   * @default none: the reply is text
   */
  responseFormat: value<ResponseFormat>(() => true, "{ type: 'json', schema }").optional(), // checked with its schema
  /**
   * A grammar (GBNF) that the text of the reply must follow. The model cannot call tools in this turn, and there can be
   * no `responseFormat`. @default none
   */
  grammar: text().optional(),
};

/** Options of one turn. */
export interface SendOptions<S extends Schema = Schema> extends OptionsOf<typeof SEND> {
  /**
   * The reply must be JSON that matches a schema. The model cannot call tools in this turn, unless `allowTools` is set.
   * @default none: the reply is text
   */
  responseFormat?: ResponseFormat<S> | undefined;
}

export const SEND_OPTIONS = group(SEND);

/** The hint for turn options that were passed to another call. */
export const IN_SEND: Place = { names: Object.keys(SEND), where: 'in `send` and `stream`' };

/** The hint for session options that were passed to a turn. */
const IN_CREATE_SESSION: Place = {
  names: ['systemPrompt', 'tools', 'messages', 'compaction', 'templateCache', 'tenant'],
  where: 'in `createSession`',
};

/** Tool options with all defaults filled in. */
export type ResolvedToolOptions = ResolvedOf<typeof TOOL_CALLS> & { maxToolResultLength: number };

/**
 * Merges tool options. An option of a later layer overrides the same option of earlier layers. Ignores other options.
 */
export function resolveToolOptions(contextSize: number, ...layers: readonly ToolOptions[]): ResolvedToolOptions {
  const entries = Object.entries(Object.assign({}, ...layers.map(definedOptions))).filter(([name]) =>
    Object.hasOwn(TOOL_CALLS, name),
  );
  const { maxToolResultLength = contextSize, ...rest } = TOOL_CALL_OPTIONS.parse(Object.fromEntries(entries));
  return { ...rest, maxToolResultLength };
}

/** Generation options with all defaults filled in. */
export interface ResolvedGeneration {
  maxTokens: number;
  sampling: SamplingOptions;
  stop: readonly string[];
  repetition: RepetitionGuardOptions | undefined;
  logProbabilities: number | undefined;
  timeoutMs: number | undefined;
  /** Fires `timeoutMs` after the call. */
  deadline: AbortSignal | undefined;
}

/**
 * Checks generation options and fills in defaults. The time limit `timeoutMs` starts now.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function resolveGeneration(options: unknown, schema: Group<GenerationOptions, unknown>): ResolvedGeneration {
  const { maxTokens, sampling, stop, repetitionGuard, logProbabilities, timeoutMs } = parseOptions(schema, options, {
    where: 'the options',
    code: 'INVALID_ARGUMENT',
    places: [IN_SAMPLING, IN_CREATE_SESSION],
  }) as ResolvedOf<typeof GENERATION>;
  return {
    maxTokens: maxTokens ?? Number.POSITIVE_INFINITY,
    sampling: sampling ?? {},
    stop: stop === undefined ? [] : (stopsOf(stop) as readonly string[]),
    repetition: repetitionGuard ? (repetitionGuard === true ? {} : repetitionGuard) : undefined,
    logProbabilities,
    timeoutMs,
    deadline: timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs),
  };
}

/** @returns undefined if the stop strings are invalid */
function stopsOf(value: unknown): readonly string[] | undefined {
  const stops = typeof value === 'string' ? [value] : value;
  const usable =
    Array.isArray(stops) &&
    stops.length <= MAX_STOPS &&
    stops.every((stop) => typeof stop === 'string' && stop !== '' && stop.length <= MAX_STOP_LENGTH) &&
    !stops.some((stop: string) => /\p{Surrogate}/u.test(stop)); // no reply contains half of a surrogate pair
  return usable ? (stops as string[]) : undefined;
}
