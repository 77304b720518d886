import { HeadstartError } from '../errors.js';
import { describe } from '../options.js';
import { addon } from './addon.js';

/** From the gravest to the most detailed. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Where llama.cpp's lines, and this package's own, go. */
export type Logger = (level: LogLevel, message: string) => void;

/** Who gets this thread's lines. */
let current: Logger | undefined;

const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug'];

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

/** Passes on the lines up to a level. */
export function limitedLogger(logger: Logger, most: LogLevel): Logger {
  return (level, message) => {
    if (LEVELS.indexOf(level) <= LEVELS.indexOf(most)) {
      logger(level, message);
    }
  };
}

/** A line each, on standard error. */
export const stderrLogger: Logger = (level, message) => void process.stderr.write(`${level}: ${message}\n`);

/** A logger that throws loses that line and no other: its first error becomes a process warning (`LOGGER_THREW`). */
export function forgivingLogger(logger: Logger): Logger {
  let warned = false;
  return (level, message) => {
    try {
      logger(level, message);
    } catch (error) {
      if (!warned) {
        warned = true;
        process.emitWarning(`The logger threw: ${error}`, { code: 'LOGGER_THREW' });
      }
    }
  };
}
