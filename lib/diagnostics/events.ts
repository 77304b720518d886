// The channels of node:diagnostics_channel that programs can subscribe to, and their messages.
import { channel } from 'node:diagnostics_channel';
import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';

/** A session was opened or closed. */
export type SessionEvent =
  | {
      event: 'start';
      /** As `session.id`. */
      sessionId: string;
      /** How the start of the session went. */
      report: SessionStart;
    }
  | {
      event: 'close';
      /** As `session.id`. */
      sessionId: string;
    };

/** How a session's start went. The message has all fields of `session.report`. */
export interface SessionStart {
  /** Where the template's state came from: `resident`, `memory`, `disk` or `prefill`. */
  source: string;
  /** Whether the template was in the cache: `hit`, `prefix`, `miss` or `bypass`. */
  cache: string;
  /** `source`, or `miss` or `bypass` for a prefill. @deprecated Use `source` and `cache`. */
  tier: string;
  /** Tokens in the template. */
  templateTokens: number;
  /** Tokens of the template whose KV state was not computed again. */
  cachedTokens: number;
  /** Milliseconds from the call until the template was in the session's sequence. */
  ms: number;
  /** Why no better start was possible. */
  reason?: string;
}

/** A turn of a session: one message, until its reply is complete, tool calls included. */
export type TurnEvent =
  | {
      event: 'start';
      /** Unique for each turn. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** The model file's path. */
      model: string;
    }
  | {
      event: 'end';
      /** As in the `start` event. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** Milliseconds since the `start` event. */
      ms: number;
      /** Absent if the turn failed. */
      finishReason?: string;
      /** Absent if the turn failed. */
      usage?: {
        /** Tokens in the prompts of all steps, the cached ones included. */
        inputTokens: number;
        /** Prompt tokens that were already in the KV cache. */
        cachedInputTokens: number;
        /** Generated tokens, the reasoning included. */
        outputTokens: number;
        /** Generated tokens that belong to reasoning. */
        reasoningTokens: number;
      };
      /** The error of a turn that failed or was aborted. */
      error?: unknown;
    };

/** The call of a tool began or ended. */
export type ToolCallEvent =
  | {
      event: 'start';
      /** The turn that the call is part of. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** Unique in the conversation. */
      toolCallId: string;
      /** The name of the tool. */
      name: string;
    }
  | {
      event: 'end';
      /** As in the `start` event. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** As in the `start` event. */
      toolCallId: string;
      /** The name of the tool. */
      name: string;
      /** Milliseconds since the `start` event. */
      ms: number;
      /** Whether the model received an error as the result. */
      isError: boolean;
    };

/** A prompt, or the part of it that was not in the KV cache, was prefilled. */
export interface PrefillEvent {
  /** The id of the sequence. */
  sequence: number;
  /** Tokens that were decoded. */
  tokens: number;
  /** Milliseconds, including the time between the batches of the prompt. */
  ms: number;
}

/** One decode: a batch with tokens of one or more sessions. */
export interface DecodeEvent {
  /** Tokens in the batch. */
  tokens: number;
  /** Tokens of prompts. The other tokens of the batch belong to replies, one for each sequence. */
  promptTokens: number;
  /** Sequences in the batch. */
  sequences: number;
  /** Requests that have to wait for the next decode. */
  waiting: number;
  /** Milliseconds from the call until the next tokens were chosen. */
  ms: number;
}

/** The type of message for each channel; the channel `session` is `llama-headstart:session`, and so on. */
export interface DiagnosticsEvents {
  /** A session was opened or closed. */
  session: SessionEvent;
  /** A turn began or ended. */
  turn: TurnEvent;
  /** The call of a tool began or ended. */
  'tool-call': ToolCallEvent;
  /** A prompt was prefilled. */
  prefill: PrefillEvent;
  /** A decode has ended. */
  decode: DecodeEvent;
}

const PREFIX = 'llama-headstart:';

/** The channels by their short names. A channel without a reference is garbage-collected, with its subscribers. */
const channels = {
  session: channel(`${PREFIX}session`),
  turn: channel(`${PREFIX}turn`),
  'tool-call': channel(`${PREFIX}tool-call`),
  prefill: channel(`${PREFIX}prefill`),
  decode: channel(`${PREFIX}decode`),
} as const satisfies Record<keyof DiagnosticsEvents, unknown>;

/** Whether a channel has subscribers. Nothing is measured for a channel without subscribers. */
export function isObserved(name: keyof DiagnosticsEvents): boolean {
  return channels[name].hasSubscribers;
}

/**
 * Calls the subscribers synchronously. An error of a subscriber becomes an uncaught exception of the process; `publish`
 * returns.
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
