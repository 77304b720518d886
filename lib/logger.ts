/** The levels of log lines, the most severe first. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Receives the log lines of llama.cpp and of this package. */
export type Logger = (level: LogLevel, message: string) => void;

export const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug'];

/** Returns a logger that drops the lines that are less severe than `most`. */
export function limitedLogger(logger: Logger, most: LogLevel): Logger {
  return (level, message) => {
    if (LEVELS.indexOf(level) <= LEVELS.indexOf(most)) {
      logger(level, message);
    }
  };
}

/** Writes each message as a line to standard error. */
export const stderrLogger: Logger = (level, message) => void process.stderr.write(`${level}: ${message}\n`);

/** Returns a logger that never throws. The first error of `logger` becomes a process warning (`LOGGER_THREW`). */
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
