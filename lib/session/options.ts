import { REPETITION_GUARD_OPTIONS, type RepetitionGuardOptions } from '../generate/repetition-guard.js';
import type { ResponseFormat } from '../generate/response-format.js';
import { IN_SAMPLING } from '../generate/sampling.js';
import {
  abortSignal,
  boolean,
  callable,
  type Group,
  group,
  integer,
  isObject,
  type OptionsOf,
  type ResolvedOf,
  switchable,
  value,
} from '../option-types.js';
import { given, type Place } from '../options.js';
import { parseOptions } from '../parse-options.js';
import { SAMPLING_OPTIONS, type SamplingOptions } from '../sampling-options.js';
import type { ToolCallHook } from '../tools/approval.js';
import type { Schema } from '../tools/schemas/schema.js';
import type { ToolChoice } from '../tools/tool.js';

const MAX_STOPS = 64;
const MAX_STOP_LENGTH = 1024;
/** A day: longer timers overflow long after anybody waits. */
const MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000;

export const GENERATION = {
  /** Most tokens to generate for one reply. @default what the context has space for */
  maxTokens: value<number>(
    (given) => given === Number.POSITIVE_INFINITY || (Number.isSafeInteger(given) && (given as number) >= 1),
    'an integer from 1 up',
  ).optional(),
  /** How tokens are chosen: over the session's, the agent's and the model's own defaults, option by option. */
  sampling: SAMPLING_OPTIONS.optional(),
  /**
   * Texts that end a reply, at most 64 of up to 1,024 characters. They are not part of it, and no piece of one is streamed.
   * Only the text of the reply is searched: what the model thinks, tool calls and their markup are not. A completion
   * (`complete`) is searched as a whole. @default none
   */
  stop: value<string | readonly string[]>(
    (given) => stopsOf(given) !== undefined,
    `up to ${MAX_STOPS} non-empty strings of whole characters`,
  ).optional(),
  /** Ends a reply that says the same over and over, with `length`. @default false */
  repetitionGuard: switchable(REPETITION_GUARD_OPTIONS as Group<RepetitionGuardOptions>).optional(),
  /** How many of the likeliest tokens to report at each position of the reply, with their log-probabilities: 0 to 100. @default none */
  logProbabilities: integer(0, 100).optional(),
  /**
   * Ends generation so many ms after the call; what is there of the reply stays, with `aborted`. Before the first token the
   * turn fails with `ABORTED`. @default none
   */
  timeoutMs: integer(1, MAX_TIMEOUT_MS).optional(),
  /** Ends the turn with `ABORTED`; the session can be used again. */
  signal: abortSignal().optional(),
};

/** How a reply is generated. */
export interface GenerationOptions extends OptionsOf<typeof GENERATION> {}

export const TOOL_CALLS = {
  /** Which tools the model may call. @default 'auto' */
  toolChoice: value<ToolChoice>(
    (given) =>
      ['auto', 'required', 'none'].includes(given as string) || (isObject(given) && typeof given.name === 'string'),
    'auto, required, none or { name }',
  ).default('auto'),
  /** Most replies in one turn: each but the last has tool calls, or broke its `responseFormat`. 1 to 1,000. @default 16 */
  maxSteps: integer(1, 1000).default(16),
  /** Calls of one reply that run at the same time; with 1 the model makes one call at a time. 1 to 64. @default 4 */
  maxParallelTools: integer(1, 64).default(4),
  /** How long one call may run, ms, once `onToolCall` has let it. @default 60000 */
  toolTimeoutMs: integer(1, MAX_TIMEOUT_MS).default(60_000),
  /** Longer results are cut, in characters. @default contextSize: about a quarter of the context */
  maxToolResultLength: integer(1).optional(),
  /** Asked before a tool runs: approves, changes or refuses the call. A person may be asked: no time limit but the turn's. */
  onToolCall: callable<ToolCallHook>().optional(),
};

/** How tools are called. */
export interface ToolOptions extends OptionsOf<typeof TOOL_CALLS> {}

const TOOL_CALL_OPTIONS = group(TOOL_CALLS);

const SEND = {
  ...GENERATION,
  ...TOOL_CALLS,
  /** Let the model think first, if its chat template can switch that. @default true */
  reasoning: boolean().default(true),
  /** The reply must be JSON of a schema; tools are not called in this turn. @default none: a text */
  responseFormat: value<ResponseFormat>(() => true, "{ type: 'json', schema }").optional(), // checked with its schema
};

/** Options of one turn. */
export interface SendOptions<S extends Schema = Schema> extends OptionsOf<typeof SEND> {
  /** The reply must be JSON of a schema; tools are not called in this turn. @default none: a text */
  responseFormat?: ResponseFormat<S> | undefined;
}

export const SEND_OPTIONS = group(SEND);

/** Options of a turn, for those who give them elsewhere. */
export const IN_SEND: Place = { names: Object.keys(SEND), where: 'in `send` and `stream`' };

/** Options of a session that no turn has. */
const IN_CREATE_SESSION: Place = {
  names: ['systemPrompt', 'tools', 'messages', 'compaction', 'templateCache', 'tenant'],
  where: 'in `createSession`',
};

/** Tool options with every default in place. */
export type ResolvedToolOptions = ResolvedOf<typeof TOOL_CALLS> & { maxToolResultLength: number };

/** Later layers win, option by option. Other options of a layer are left out. */
export function resolveToolOptions(contextSize: number, ...layers: readonly ToolOptions[]): ResolvedToolOptions {
  const own = Object.entries(Object.assign({}, ...layers.map(given))).filter(([name]) =>
    Object.hasOwn(TOOL_CALLS, name),
  );
  const { maxToolResultLength = contextSize, ...rest } = TOOL_CALL_OPTIONS.parse(Object.fromEntries(own));
  return { ...rest, maxToolResultLength };
}

/** Generation options with every default in place. */
export interface ResolvedGeneration {
  maxTokens: number;
  sampling: SamplingOptions;
  stop: readonly string[];
  repetition: RepetitionGuardOptions | undefined;
  logProbabilities: number | undefined;
  deadline: AbortSignal | undefined;
}

/**
 * Checks and completes options; `timeoutMs` begins now.
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
    deadline: timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs),
  };
}

/** Undefined where they are not what they should be. */
function stopsOf(value: unknown): readonly string[] | undefined {
  const stops = typeof value === 'string' ? [value] : value;
  const usable =
    Array.isArray(stops) &&
    stops.length <= MAX_STOPS &&
    stops.every((stop) => typeof stop === 'string' && stop !== '' && stop.length <= MAX_STOP_LENGTH) &&
    !stops.some((stop: string) => /\p{Surrogate}/u.test(stop)); // half a character: replies have whole ones only
  return usable ? (stops as string[]) : undefined;
}
