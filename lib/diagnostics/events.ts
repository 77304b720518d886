// The channels of node:diagnostics_channel that programs can subscribe to, and their messages.
import { channel } from 'node:diagnostics_channel';
import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';

/** A session was opened or closed. */
export type SessionEvent =
  | {
      event: 'start';
      /** The same as `session.id`. */
      sessionId: string;
      /** Describes the start of the session. */
      report: SessionStart;
    }
  | {
      event: 'close';
      /** The same as `session.id`. */
      sessionId: string;
    };

/** Describes the start of a session. In messages, the object has all fields of `session.report`. */
export interface SessionStart {
  /** Where the template's state came from: `resident`, `memory`, `disk` or `prefill`. */
  source: string;
  /** Whether the template was in the cache: `hit`, `prefix`, `miss` or `bypass`. */
  cache: string;
  /** The same as `source`, but `miss` or `bypass` for a prefill. @deprecated Use `source` and `cache`. */
  tier: string;
  /** Number of tokens in the template. */
  templateTokens: number;
  /** Tokens of the template whose KV state was not computed again. */
  cachedTokens: number;
  /** Time from the call until the template was in the session's sequence, in ms. */
  ms: number;
  /** The reason why no faster start was possible. */
  reason?: string;
}

/** A turn began or ended. A turn lasts from a message to its complete reply, with all tool calls. */
export type TurnEvent =
  | {
      event: 'start';
      /** The unique id of the turn. */
      turnId: string;
      /** The same as `session.id`. */
      sessionId: string;
      /** The model file's path. */
      model: string;
    }
  | {
      event: 'end';
      /** The same as in the `start` event. */
      turnId: string;
      /** The same as `session.id`. */
      sessionId: string;
      /** Milliseconds since the `start` event. */
      ms: number;
      /** Why the turn ended. Absent if the turn failed. */
      finishReason?: string;
      /** The cost of the turn. Absent if the turn failed. */
      usage?: {
        /** Tokens in the prompts of all steps, including the cached tokens. */
        inputTokens: number;
        /** Prompt tokens that were already in the KV cache. */
        cachedInputTokens: number;
        /** Generated tokens, including reasoning. */
        outputTokens: number;
        /** Generated tokens that belong to reasoning. */
        reasoningTokens: number;
      };
      /** The error of a turn that failed or was aborted. */
      error?: unknown;
    };

/** A tool call began or ended. */
export type ToolCallEvent =
  | {
      event: 'start';
      /** The id of the turn to which the call belongs. */
      turnId: string;
      /** The same as `session.id`. */
      sessionId: string;
      /** Unique in the conversation. */
      toolCallId: string;
      /** The name of the tool. */
      name: string;
    }
  | {
      event: 'end';
      /** The same as in the `start` event. */
      turnId: string;
      /** The same as `session.id`. */
      sessionId: string;
      /** The same as in the `start` event. */
      toolCallId: string;
      /** The name of the tool. */
      name: string;
      /** Milliseconds since the `start` event. */
      ms: number;
      /** Whether the model received an error as the result. */
      isError: boolean;
    };

/** The part of a prompt that was not in the KV cache was prefilled. */
export interface PrefillEvent {
  /** The id of the sequence. */
  sequence: number;
  /** Number of decoded tokens. */
  tokens: number;
  /** Duration in ms, including the time between the batches of the prompt. */
  ms: number;
}

/** One decode: a batch with tokens of one or more sessions. */
export interface DecodeEvent {
  /** Number of tokens in the batch. */
  tokens: number;
  /** Number of prompt tokens in the batch. Each other token continues the reply of one sequence. */
  promptTokens: number;
  /** Number of sequences in the batch. */
  sequences: number;
  /** Number of requests that have to wait for the next decode. */
  waiting: number;
  /** Time from the call until the next tokens were chosen, in ms. */
  ms: number;
}

/**
 * The type of message of each channel. The full name of the channel `session` is `llama-headstart:session`, and so on.
 */
export interface DiagnosticsEvents {
  /** A session was opened or closed. */
  session: SessionEvent;
  /** A turn began or ended. */
  turn: TurnEvent;
  /** A tool call began or ended. */
  'tool-call': ToolCallEvent;
  /** A prompt was prefilled. */
  prefill: PrefillEvent;
  /** A decode has ended. */
  decode: DecodeEvent;
}

const PREFIX = 'llama-headstart:';

/**
 * The channels by their short names. Without these references, channels and their subscribers would be
 * garbage-collected.
 */
const channels = {
  session: channel(`${PREFIX}session`),
  turn: channel(`${PREFIX}turn`),
  'tool-call': channel(`${PREFIX}tool-call`),
  prefill: channel(`${PREFIX}prefill`),
  decode: channel(`${PREFIX}decode`),
} as const satisfies Record<keyof DiagnosticsEvents, unknown>;

/** Whether a channel has subscribers. Callers measure nothing for a channel without subscribers. */
export function isObserved(name: keyof DiagnosticsEvents): boolean {
  return channels[name].hasSubscribers;
}

/**
 * Calls the subscribers synchronously. `publish` never throws: an error of a subscriber becomes an uncaught exception
 * of the process.
 */
export function publish<Name extends keyof DiagnosticsEvents>(name: Name, message: DiagnosticsEvents[Name]): void {
  const { [name]: target } = channels;
  if (target.hasSubscribers) {
    target.publish(message);
  }
}

/**
 * Calls `listener` with each message of a channel.
 *
 * @returns a function that unsubscribes
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function subscribeDiagnostics<Name extends keyof DiagnosticsEvents>(
  name: Name,
  listener: (message: DiagnosticsEvents[Name]) => void,
): () => void {
  if (!Object.hasOwn(channels, name) || typeof listener !== 'function') {
    const names = Object.keys(channels).join(', ');
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected one of the channels ${names} and a function, got ${describe(name)} and ${describe(listener)}`,
    );
  }
  const onMessage = (message: unknown) => listener(message as DiagnosticsEvents[Name]);
  channels[name].subscribe(onMessage);
  return () => void channels[name].unsubscribe(onMessage);
}
