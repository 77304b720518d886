import { abortSignal, boolean, type Check, callable, checkOptions, integer, type Place } from '../options.js';
import type { ToolCallHook } from '../tools/approval.js';
import type { Schema } from '../tools/schema.js';
import type { ToolChoice } from '../tools/tool.js';
import type { RepetitionGuardOptions } from './repetition.js';
import { checkSamplingNames, IN_SAMPLING, type SamplingOptions } from './sampling.js';
import type { ResponseFormat } from './structured.js';

/** How a reply is generated. */
export interface GenerationOptions {
  /** Most tokens to generate for one reply. @default what the context has room for */
  maxTokens?: number;
  /** How tokens are chosen: over the session's, the agent's and the model's own defaults, option by option. */
  sampling?: SamplingOptions;
  /**
   * Texts that end a reply, at most 64 of up to 1,024 characters. They are not part of it, and no piece of one is streamed.
   * Only the text of the reply is searched: what the model thinks, tool calls and their markup are not. A completion
   * (`complete`) is searched as a whole.
   */
  stop?: string | readonly string[];
  /** Ends a reply that says the same over and over, with `length`. @default false */
  repetitionGuard?: boolean | RepetitionGuardOptions;
  /** How many of the likeliest tokens to tell at each place of the reply, with their log-probabilities: 0 to 100. @default none */
  logProbabilities?: number;
  /**
   * Ends generation so many ms after the call; what is there of the reply stays, with `aborted`. Before the first token the
   * turn fails with `ABORTED`.
   */
  timeoutMs?: number;
  /** Ends the turn with `ABORTED`; the session can be used again. */
  signal?: AbortSignal;
}

/** How tools are called. */
export interface ToolOptions {
  /** Which tools the model may call. @default 'auto' */
  toolChoice?: ToolChoice;
  /** Most replies in one turn, each but the last with tool calls. 1 to 1,000. @default 16 */
  maxSteps?: number;
  /** Calls of one reply that run at the same time; with 1 the model makes one call at a time. 1 to 64. @default 4 */
  maxParallelTools?: number;
  /** How long one call may run, ms, once `onToolCall` has let it. @default 60000 */
  toolTimeoutMs?: number;
  /** Longer results are cut, in characters. @default contextSize: about a quarter of the context */
  maxToolResultLength?: number;
  /** Asked before a tool runs: approves, changes or refuses the call. A person may be asked: no time limit but the turn's. */
  onToolCall?: ToolCallHook;
}

/** Options of one turn. */
export interface SendOptions<S extends Schema = Schema> extends GenerationOptions, ToolOptions {
  /** Let the model think first, where its chat template can switch that. @default true */
  reasoning?: boolean;
  /** The reply must be JSON of a schema; tools are not called in this turn. */
  responseFormat?: ResponseFormat<S>;
}

const MAX_STOPS = 64;
const MAX_STOP_LENGTH = 1024;

const REPETITION_CHECKS = {
  maxRunTokens: integer(1, 512),
  repeats: integer(2, 1000),
  minTokens: integer(1, 65_536),
};

/** A day: longer timers overflow long after anybody waits. */
const MAX_TIMEOUT_MS = 24 * 60 * 60 * 1000;

export const GENERATION_CHECKS: Record<keyof GenerationOptions, Check> = {
  maxTokens: (value) =>
    value === Number.POSITIVE_INFINITY || (Number.isSafeInteger(value) && (value as number) >= 1)
      ? undefined
      : 'an integer from 1 up',
  sampling: (value) => (typeof value === 'object' && value !== null ? undefined : 'an object'),
  stop: (value) =>
    stopsOf(value) === undefined ? `up to ${MAX_STOPS} non-empty strings of whole characters` : undefined,
  repetitionGuard: (value) => (typeof value === 'boolean' || isObject(value) ? undefined : 'a boolean or an object'),
  logProbabilities: integer(0, 100),
  timeoutMs: integer(1, MAX_TIMEOUT_MS),
  signal: abortSignal,
};

export const TOOL_CHECKS: Record<keyof ToolOptions, Check> = {
  toolChoice: (value) =>
    ['auto', 'required', 'none'].includes(value as string) ||
    (isObject(value) && typeof (value as { name?: unknown }).name === 'string')
      ? undefined
      : 'auto, required, none or { name }',
  maxSteps: integer(1, 1000),
  maxParallelTools: integer(1, 64),
  toolTimeoutMs: integer(1, MAX_TIMEOUT_MS),
  maxToolResultLength: integer(1),
  onToolCall: callable,
};

export const SEND_CHECKS: Record<keyof SendOptions, Check> = {
  ...GENERATION_CHECKS,
  ...TOOL_CHECKS,
  reasoning: boolean,
  responseFormat: () => undefined, // checked with its schema
};

/** Options of a turn, for those who give them elsewhere. */
export const IN_SEND: Place = { names: Object.keys(SEND_CHECKS), where: 'in `send` and `stream`' };

/** Options of a session that no turn has. */
const IN_CREATE_SESSION: Place = {
  names: ['systemPrompt', 'tools', 'messages', 'compaction', 'templateCache', 'tenant'],
  where: 'in `createSession`',
};

/** Tool options with every default in place. */
export type ResolvedToolOptions = Required<Omit<ToolOptions, 'onToolCall'>> & Pick<ToolOptions, 'onToolCall'>;

/** Later layers win, option by option. */
export function resolveToolOptions(contextSize: number, ...layers: readonly ToolOptions[]): ResolvedToolOptions {
  const defaults: ResolvedToolOptions = {
    toolChoice: 'auto',
    maxSteps: 16,
    maxParallelTools: 4,
    toolTimeoutMs: 60_000,
    maxToolResultLength: contextSize,
  };
  const given = layers.flatMap((layer) =>
    Object.entries(layer).filter(([name, value]) => Object.hasOwn(TOOL_CHECKS, name) && value !== undefined),
  );
  return { ...defaults, ...Object.fromEntries(given) };
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
export function resolveGeneration(
  options: GenerationOptions,
  checks: Record<string, Check> = GENERATION_CHECKS,
): ResolvedGeneration {
  checkOptions(options, checks, 'the options', 'INVALID_ARGUMENT', [IN_SAMPLING, IN_CREATE_SESSION]);
  const { maxTokens, sampling = {}, stop, repetitionGuard, logProbabilities, timeoutMs } = options;
  checkSamplingNames(sampling);
  if (isObject(repetitionGuard)) {
    checkOptions(repetitionGuard, REPETITION_CHECKS, '`repetitionGuard`', 'INVALID_ARGUMENT');
  }
  return {
    maxTokens: maxTokens ?? Number.POSITIVE_INFINITY,
    sampling,
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

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
