/** From the gravest to the most detailed. */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Where llama.cpp's lines, and this package's own, go. */
export type Logger = (level: LogLevel, message: string) => void;

export const LEVELS: readonly LogLevel[] = ['error', 'warn', 'info', 'debug'];

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
