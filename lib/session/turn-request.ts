// Merges the options of a turn with the session's options and the defaults, and checks them before the turn begins.

import { combinedSignal, eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { mergeSampling } from '../generate/sampling.js';
import { UsageCounter } from '../generate/usage-counter.js';
import { requireToolChoice, type ToolSession } from '../tools/tool.js';
import { readTurn, type TurnInput } from './conversation.js';
import { resolveGeneration, resolveToolOptions, SEND_OPTIONS, type SendOptions } from './send-options.js';
import type { SessionSetup } from './session-setup.js';
import type { TurnRequest } from './turn.js';
import { newTurnId } from './turn-events.js';

/** A turn with checked options. Its `responseFormat` is prepared when the turn begins. */
export type CheckedTurn = Omit<TurnRequest, 'format'>;

interface TurnArguments {
  message: TurnInput;
  options: SendOptions;
  /** The turn is aborted when one of these signals aborts. */
  signals: readonly AbortSignal[];
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function readRequest(
  session: ToolSession,
  setup: SessionSetup,
  contextSize: number,
  { message, options, signals }: TurnArguments,
): CheckedTurn {
  const generation = resolveGeneration(options, SEND_OPTIONS);
  const { tools } = setup;
  const { maxSteps, toolChoice, onToolCall, ...limits } = resolveToolOptions(contextSize, setup.options, options);
  requireToolChoice(toolChoice, tools);
  requireOneGoal(options);
  const signal = combinedSignal(...signals, options.signal);
  // Tools stop at the deadline of the reply, because no reply could follow their results.
  const toolSignal = eitherSignal(signal, generation.deadline);
  return {
    messages: [...session.messages, ...readTurn(message, session.messages)],
    generation,
    sampling: mergeSampling(setup.sampling, generation.sampling),
    toolChoice,
    maxSteps,
    toolRun: { ...limits, turnId: newTurnId(), tools, session, hook: onToolCall, signal: toolSignal },
    reasoning: options.reasoning ?? true,
    signal,
    usage: new UsageCounter(),
  };
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
