// What observers can subscribe to (node:diagnostics_channel): names, messages, and the one way to publish them.
import { channel } from 'node:diagnostics_channel';
import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';

/** A session began or ended. */
export type SessionEvent =
  | {
      event: 'start';
      /** As `session.id`. */
      sessionId: string;
      /** How its start went. */
      report: SessionStart;
    }
  | {
      event: 'close';
      /** As `session.id`. */
      sessionId: string;
    };

/** How a session's start went; the message has all of its `report`. */
export interface SessionStart {
  /** Where the template's state came from: `resident`, `memory`, `disk` or `prefill`. */
  source: string;
  /** Whether the template was in the cache: `hit`, `prefix`, `miss` or `bypass`. */
  cache: string;
  /** `source`, or `miss` or `bypass` for a prefill. @deprecated Use `source` and `cache`. */
  tier: string;
  /** Tokens in the template. */
  templateTokens: number;
  /** Of those, tokens whose KV state was not computed again. */
  cachedTokens: number;
  /** Milliseconds. */
  ms: number;
  /** Why nothing better was possible. */
  reason?: string;
}

/** A turn of a session: one message, until its reply is complete, tool calls included. */
export type TurnEvent =
  | {
      event: 'start';
      /** Of this turn alone. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** The model file's path. */
      model: string;
    }
  | {
      event: 'end';
      /** As at its start. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** Milliseconds since its start. */
      ms: number;
      /** Absent where it failed. */
      finishReason?: string;
      /** Absent where it failed. */
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
      /** Why it failed, or was aborted. */
      error?: unknown;
    };

/** A tool was called. */
export type ToolCallEvent =
  | {
      event: 'start';
      /** The turn that it is part of. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** Unique in its conversation. */
      toolCallId: string;
      /** The tool's. */
      name: string;
    }
  | {
      event: 'end';
      /** As at its start. */
      turnId: string;
      /** As `session.id`. */
      sessionId: string;
      /** As at its start. */
      toolCallId: string;
      /** The tool's. */
      name: string;
      /** Milliseconds since its start. */
      ms: number;
      /** The model was told of a failure. */
      isError: boolean;
    };

/** A prompt, or what of it was not in the KV cache, went into a sequence. */
export interface PrefillEvent {
  /** The id of the sequence. */
  sequence: number;
  /** Tokens that were decoded. */
  tokens: number;
  /** Milliseconds, with the waiting between its batches. */
  ms: number;
}

/** One decode: a batch of all sessions' work. */
export interface DecodeEvent {
  /** Tokens in the batch. */
  tokens: number;
  /** Of those, tokens of prompts; the others go on with a reply, one for each sequence. */
  promptTokens: number;
  /** Sequences in the batch. */
  sequences: number;
  /** Requests that were ready and had to wait for the next one. */
  waiting: number;
  /** From the call to the tokens being chosen, milliseconds. */
  ms: number;
}

/** The messages by channel: `llama-headstart:session` and so on. */
export interface DiagnosticsEvents {
  /** A session began or ended. */
  session: SessionEvent;
  /** A turn began or ended. */
  turn: TurnEvent;
  /** A tool was called, or returned. */
  'tool-call': ToolCallEvent;
  /** A prompt is in its sequence. */
  prefill: PrefillEvent;
  /** After each decode. */
  decode: DecodeEvent;
}

const PREFIX = 'llama-headstart:';

/** By their short names. Held here: a channel that nobody refers to is collected, with its subscribers. */
const channels = {
  session: channel(`${PREFIX}session`),
  turn: channel(`${PREFIX}turn`),
  'tool-call': channel(`${PREFIX}tool-call`),
  prefill: channel(`${PREFIX}prefill`),
  decode: channel(`${PREFIX}decode`),
} as const satisfies Record<keyof DiagnosticsEvents, unknown>;

/** Whether anybody listens: where not, nothing has to be measured. */
export function isObserved(name: keyof DiagnosticsEvents): boolean {
  return channels[name].hasSubscribers;
}

/** Tells subscribers, at once. A subscriber that throws becomes an uncaught exception of the process, and no failure here. */
export function publish<Name extends keyof DiagnosticsEvents>(name: Name, message: DiagnosticsEvents[Name]): void {
  const { [name]: target } = channels;
  if (target.hasSubscribers) {
    target.publish(message);
  }
}

/**
 * Calls `listener` with each message of a channel.
 *
 * @returns how to unsubscribe
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
