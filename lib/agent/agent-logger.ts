// The logger of an agent, which also gets llama.cpp's log.
import { forgivingLogger, type Logger, limitedLogger, stderrLogger } from '../logger.js';
import { setNativeLogger, unsetNativeLogger } from '../native/log.js';

/** The user's logger, limited to the wanted levels. With `debug` and no logger, lines go to standard error. */
export function loggerOf(userLogger: Logger | undefined, debug: boolean): Logger | undefined {
  const logger = userLogger ?? (debug ? stderrLogger : undefined);
  return logger && limitedLogger(forgivingLogger(logger), debug ? 'debug' : 'warn');
}

/**
 * llama.cpp warns if a unified KV cache has more cells than the training length. Many sessions share these cells, so
 * the warning is wrong for one session. The agent compares the training length with `contextSize` instead: see
 * `trainingLengthWarning`.
 */
const FALSE_ALARM = /n_ctx_seq \(\d+\) > n_ctx_train \(\d+\)/;

/**
 * Sends llama.cpp's log to a logger.
 *
 * @returns a function that stops this, unless another logger has replaced `logger`
 */
export function receiveNativeLog(logger: Logger | undefined, debug: boolean): () => void {
  if (logger === undefined) {
    return () => {};
  }
  const native: Logger = (level, message) => {
    if (!FALSE_ALARM.test(message)) {
      logger(level, message);
    }
  };
  setNativeLogger(native, { level: debug ? 'info' : 'warn' });
  return () => unsetNativeLogger(native);
}
