// A turn as it was asked for: its options over the session's and the defaults, checked before anything is done.

import { eitherSignal } from '../abort.js';
import { HeadstartError } from '../errors.js';
import { mergeSampling } from '../generate/sampling.js';
import { UsageCounter } from '../generate/usage-counter.js';
import { requireToolChoice, type ToolSession } from '../tools/tool.js';
import { readTurn, type TurnInput } from './conversation.js';
import { resolveGeneration, resolveToolOptions, SEND_OPTIONS, type SendOptions } from './send-options.js';
import type { SessionSetup } from './session-setup.js';
import type { TurnRequest } from './turn.js';
import { newTurnId } from './turn-events.js';

/** Its `responseFormat` is prepared once it runs. */
export type AskedTurn = Omit<TurnRequest, 'format' | 'asksAgain'>;

interface Asked {
  message: TurnInput;
  options: SendOptions;
  /** Fires when the session is closed. */
  closing: AbortSignal;
}

/** @throws HeadstartError `INVALID_ARGUMENT`. */
export function readRequest(
  session: ToolSession,
  setup: SessionSetup,
  contextSize: number,
  { message, options, closing }: Asked,
): AskedTurn {
  const generation = resolveGeneration(options, SEND_OPTIONS);
  const { tools } = setup;
  const { maxSteps, toolChoice, onToolCall, ...limits } = resolveToolOptions(contextSize, setup.options, options);
  requireToolChoice(toolChoice, tools);
  requireNoCalls(options);
  const signal = eitherSignal(closing, options.signal);
  // Tools end with the time for the reply: none would come behind their results.
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

function requireNoCalls({ responseFormat, toolChoice = 'auto' }: SendOptions): void {
  if (responseFormat !== undefined && (toolChoice === 'required' || typeof toolChoice === 'object')) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      'Expected `responseFormat` or a `toolChoice` that asks for a call, got both: send them one after the other',
    );
  }
}
