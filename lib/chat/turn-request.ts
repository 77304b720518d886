// Merges the options of a turn with the session's options and the defaults, and checks them before the turn begins.

import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { mergeSampling } from '../generate/sampling.js';
import { UsageCounter } from '../generate/usage-counter.js';
import type { SamplingOptions } from '../sampling-options.js';
import { requireToolChoice, type ToolSession, type ToolSet } from '../tools/tool.js';
import { readTurn, type TurnInput } from './conversation.js';
import {
  resolveGeneration,
  resolveToolOptions,
  SEND_OPTIONS,
  type SendOptions,
  type ToolOptions,
} from './send-options.js';
import type { TurnRequest } from './turn.js';
import { newTurnId } from './turn-events.js';

/** A turn with checked options. Its `responseFormat` is prepared when the turn begins. */
export type CheckedTurn = Omit<TurnRequest, 'format'>;

/** The options that all turns of a session share. */
export interface TurnDefaults {
  tools: ToolSet;
  sampling: SamplingOptions;
  options: ToolOptions;
}

interface TurnArguments {
  message: TurnInput;
  options: SendOptions;
  /** The turn is aborted when one of these signals aborts. */
  signals: readonly AbortSignal[];
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function readRequest(
  session: ToolSession,
  setup: TurnDefaults,
  contextSize: number,
  { message, options, signals }: TurnArguments,
): CheckedTurn {
  const generation = resolveGeneration(options, SEND_OPTIONS);
  const signal = combinedSignal(...signals, options.signal);
  const toolRun = prepareToolRun(contextSize, [setup.options, options], {
    tools: setup.tools,
    session,
    // Tools stop at the deadline of the reply, because no reply could follow their results.
    signal: eitherSignal(signal, generation.deadline),
  });
  requireOneGoal(options);
  return {
    messages: [...session.messages, ...readTurn(message, session.messages)],
    generation,
    sampling: mergeSampling(setup.sampling, generation.sampling),
    ...toolRun,
    reasoning: options.reasoning ?? true,
    signal,
    usage: new UsageCounter(),
  };
}

/**
 * Prepares the tool calls of a turn.
 *
 * @param layers as {@link resolveToolOptions}
 * @throws HeadstartError `INVALID_ARGUMENT` if `toolChoice` names an unknown tool.
 */
export function prepareToolRun(
  contextSize: number,
  layers: readonly ToolOptions[],
  run: Pick<TurnRequest['toolRun'], 'tools' | 'session' | 'signal'>,
): Pick<TurnRequest, 'maxSteps' | 'toolChoice' | 'toolRun'> {
  const { maxSteps, toolChoice, onToolCall: hook, ...limits } = resolveToolOptions(contextSize, ...layers);
  requireToolChoice(toolChoice, run.tools);
  return { maxSteps, toolChoice, toolRun: { ...limits, ...run, turnId: newTurnId(), hook } };
}

/** @throws HeadstartError `INVALID_ARGUMENT` if the reply must be both a call and JSON. */
export function requireOneGoal({
  responseFormat,
  toolChoice = 'auto',
}: Pick<SendOptions, 'responseFormat' | 'toolChoice'>): void {
  if (responseFormat !== undefined && (toolChoice === 'required' || typeof toolChoice === 'object')) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      'Expected `responseFormat` or a `toolChoice` that requires a call, got both. Send one message for the call, ' +
        'and then one for the JSON.',
    );
  }
}
