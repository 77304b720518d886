// Writes the log lines of the option `debug`: one line for each session, turn and tool call.
import type { Logger } from '../logger.js';
import { type SessionEvent, subscribeDiagnostics, type ToolCallEvent, type TurnEvent } from './events.js';

/**
 * Logs the events of some sessions.
 *
 * @param isLogged whether the events of a session are logged
 * @returns a function that stops the logging
 */
export function logEvents(logger: Logger, isLogged: (sessionId: string) => boolean): () => void {
  const write = (sessionId: string, line: string | undefined) => {
    if (line !== undefined && isLogged(sessionId)) {
      logger('debug', `session ${sessionId}: ${line}`);
    }
  };
  const stops = [
    subscribeDiagnostics('session', (event) => write(event.sessionId, sessionLine(event))),
    subscribeDiagnostics('turn', (event) => write(event.sessionId, turnLine(event))),
    subscribeDiagnostics('tool-call', (event) => write(event.sessionId, toolCallLine(event))),
  ];
  return () => {
    for (const stop of stops) {
      stop();
    }
  };
}

function sessionLine(event: SessionEvent): string | undefined {
  if (event.event !== 'start') {
    return undefined;
  }
  const { source, cache, cachedTokens, templateTokens, ms, reason } = event.report;
  const why = reason === undefined ? '' : ` (${reason})`;
  return `${source} (${cache}), ${cachedTokens} of ${templateTokens} template tokens cached, ${ms.toFixed(1)} ms${why}`;
}

function turnLine(event: TurnEvent): string | undefined {
  if (event.event !== 'end') {
    return undefined;
  }
  const { finishReason, usage, ms, error } = event;
  const outcome = error === undefined ? finishReason : `failed: ${(error as Error).message ?? error}`;
  const cost =
    usage === undefined
      ? ''
      : `, ${usage.inputTokens} prompt tokens (${usage.cachedInputTokens} cached), ${usage.outputTokens} generated`;
  return `turn ${outcome}${cost}, ${ms.toFixed(0)} ms`;
}

function toolCallLine(event: ToolCallEvent): string | undefined {
  if (event.event !== 'end') {
    return undefined;
  }
  return `tool "${event.name}" ${event.isError ? 'failed' : 'returned'}, ${event.ms.toFixed(0)} ms`;
}
