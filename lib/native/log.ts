import { HeadstartError } from '../errors.js';
import { forgivingLogger, LEVELS, type Logger, type LogLevel } from '../logger.js';
import { describe } from '../options.js';
import { addon } from './addon.js';

/** Who gets this thread's lines. */
let current: Logger | undefined;

/**
 * Sends llama.cpp's, ggml's and `common`'s log lines to `logger`, one call a line. Quiet until called; `null` makes it
 * quiet again. One logger a thread (each worker has its own); llama.cpp's log is the process's, so each hears all of it.
 *
 * A logger that throws loses that line and no other; the first such error becomes a process warning (`LOGGER_THREW`).
 *
 * @param options.level the most detailed level wanted; default `warn`
 * @throws HeadstartError `INVALID_ARGUMENT`.
 */
export function setNativeLogger(logger: Logger | null, options: { level?: LogLevel } = {}): void {
  if (logger === null) {
    current = undefined;
    addon().setLogger(null, 0);
    return;
  }
  if (typeof logger !== 'function') {
    throw new HeadstartError('INVALID_ARGUMENT', `Expected \`logger\` to be a function or null, got ${typeof logger}`);
  }
  const level = options?.level ?? 'warn';
  if (!LEVELS.includes(level)) {
    throw new HeadstartError(
      'INVALID_ARGUMENT',
      `Expected \`level\` to be one of ${LEVELS.join(', ')}, got ${describe(level)}`,
    );
  }
  const write = forgivingLogger(logger);
  current = logger;
  addon().setLogger((severity, text) => write(LEVELS[severity - 1] ?? 'debug', text), LEVELS.indexOf(level) + 1);
}

/** Makes it quiet again, unless another logger has taken this one's place. */
export function unsetNativeLogger(logger: Logger): void {
  if (current === logger) {
    setNativeLogger(null);
  }
}
