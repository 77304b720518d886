// Merges the options of a turn with the options of its session, and checks the result before the turn begins.
import { randomUUID } from 'node:crypto';
import { eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import type { PreparedFormat, ResponseFormat } from '../generate/response-format.js';
import { mergeSampling } from '../generate/sampling.js';
import { loadedTools } from '../prompt/deferred-tools.js';
import type { ChatMessage } from '../prompt/messages.js';
import type { ReplyOptions, TemplateSource } from '../prompt/renderer.js';
import type { SamplingOptions } from '../sampling-options.js';
import type { ToolRun } from '../tools/run-calls.js';
import { requireToolChoice, type ToolChoice, type ToolSession, type ToolSet } from '../tools/tool.js';
import type { ReplyLimits } from './reply-run.js';
import { resolveToolOptions, type SendOptions, type ToolOptions } from './send-options.js';

/** A turn with merged and checked options. */
export interface TurnRequest extends ReplyLimits {
  /** The conversation. The messages of this turn are its last messages. */
  messages: readonly ChatMessage[];
  /** The index of each message in the caller's messages. @default the index in `messages` */
  indices?: readonly number[] | undefined;
  sampling: SamplingOptions;
  toolChoice: ToolChoice;
  /** Whether one reply may have several calls. */
  parallelToolCalls: boolean;
  maxSteps: number;
  toolRun: ToolRun;
  responseFormat: ResponseFormat | undefined;
  /** The grammar of the reply. */
  grammar: string | undefined;
  reasoning: boolean;
}

/** The conversation of a turn, and what its session or agent sets. */
interface TurnSetting {
  /** The conversation up to the messages that the model answers. */
  messages: readonly ChatMessage[];
  source: TemplateSource;
  /** All tools of `source`. */
  tools: ToolSet;
  session: ToolSession;
  sampling: SamplingOptions;
  toolOptions?: ToolOptions | undefined;
  contextSize: number;
}

/**
 * Merges the options of a turn with its setting.
 *
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function turnRequest(
  options: SendOptions,
  limits: ReplyLimits,
  { messages, source, tools: all, session, sampling, toolOptions = {}, contextSize }: TurnSetting,
): TurnRequest {
  const resolved = resolveToolOptions(contextSize, toolOptions, options);
  const { maxSteps, toolChoice, parallelToolCalls, onToolCall: hook, ...callLimits } = resolved;
  const tools = all.only(loadedTools(source.tools ?? [], messages));
  requireToolChoice(toolChoice, all, tools);
  requireOneGoal(options);
  // Tools stop at the deadline of the reply, because no reply could follow their results.
  const signal = eitherSignal(limits.signal, limits.generation.deadline);
  return {
    ...limits,
    messages,
    sampling: mergeSampling(sampling, limits.generation.sampling),
    maxSteps,
    toolChoice,
    parallelToolCalls: parallelToolCalls && callLimits.maxParallelTools > 1,
    toolRun: { ...callLimits, tools, session, signal, hook, turnId: randomUUID() },
    responseFormat: options.responseFormat,
    grammar: options.grammar,
    reasoning: options.reasoning ?? true,
  };
}

/** @throws HeadstartError `INVALID_ARGUMENT` if the reply must be of two kinds. */
function requireOneGoal({ responseFormat, grammar, toolChoice = 'auto' }: SendOptions): void {
  const mustCall = toolChoice === 'required' || typeof toolChoice === 'object';
  const goals = [
    ...(responseFormat !== undefined && !(mustCall && responseFormat?.allowTools) ? ['`responseFormat`'] : []),
    ...(grammar !== undefined ? ['`grammar`'] : []),
    ...(mustCall ? ['a `toolChoice` that requires a call'] : []),
  ];
  if (goals.length > 1 && (responseFormat !== undefined || grammar !== undefined)) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected one of ${goals.join(' and ')}, got both. Send a message of its own for each of them.`,
    );
  }
}

/**
 * The options of a step's prompt. A call is required only in the first reply. If every reply required a call, the turn
 * would never end.
 */
export function promptOptions(
  { reasoning, toolChoice, parallelToolCalls, grammar }: TurnRequest,
  format: PreparedFormat | undefined,
  index: number,
): ReplyOptions {
  const choice = index === 0 || toolChoice === 'none' ? toolChoice : 'auto';
  const mayCall = grammar === undefined && (format?.allowTools ?? true);
  const mustCall = mayCall && choice !== 'auto' && choice !== 'none';
  return {
    toolChoice: mayCall ? choice : 'none',
    parallelToolCalls,
    reasoning,
    jsonSchema: mustCall ? undefined : format?.grammarSchema,
    grammar,
  };
}
