import { text } from 'node:stream/consumers';
import { abortedError, onAbort } from '../../abort.js';
import type { CliIo } from '../io.js';

/**
 * Reads standard input to its end.
 *
 * @throws HeadstartError `ABORTED`. The stream is destroyed then, because it would keep the process alive.
 */
export async function readStandardInput({ stdin }: CliIo, signal: AbortSignal): Promise<string> {
  const stop = onAbort(signal, () => stdin.destroy(abortedError(signal)));
  try {
    return await text(stdin);
  } finally {
    stop();
  }
}
