import { addon } from './addon.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Where llama.cpp's lines, and this package's own, go. */
export type Logger = (level: LogLevel, message: string) => void;

const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug'];

/**
 * Sends llama.cpp's, ggml's and `common`'s log lines to `logger`, one call a line. Quiet until called; `null` makes it
 * quiet again. One logger a thread (each worker has its own); llama.cpp's log is the process's, so each hears all of it.
 *
 * @param options.level the most detailed level wanted; default `warn`
 */
export function setNativeLogger(logger: Logger | null, options: { level?: LogLevel } = {}): void {
  if (logger === null) {
    addon().setLogger(null, 0);
    return;
  }
  const severity = LEVELS.indexOf(options.level ?? 'warn') + 1;
  addon().setLogger((level, text) => logger(LEVELS[level - 1] ?? 'debug', text), severity);
}
