import { HeadstartError } from '../errors.js';
import { forgivingLogger, LEVELS, type Logger, type LogLevel } from '../logger.js';
import { describe } from '../options.js';
import { addon } from './addon.js';

/** The logger of this thread. */
let current: Logger | undefined;

/**
 * Sends the log lines of llama.cpp, ggml and llama.cpp's library `common` to `logger`, one call per line. `null`
 * removes the logger. Without a logger, lines are dropped. Each thread (main or worker) has one logger. llama.cpp has
 * one log per process, so the logger of each thread receives all lines.
 *
 * If a logger throws, only that line is lost. The first such error becomes a process warning (`LOGGER_THREW`).
 *
 * @param options.level the most detailed level to log. @default 'warn'
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

/** Removes the logger, unless another one has replaced it. */
export function unsetNativeLogger(logger: Logger): void {
  if (current === logger) {
    setNativeLogger(null);
  }
}
