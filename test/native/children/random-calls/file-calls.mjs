// Random calls of `FileLock`.
import { join } from 'node:path';
import { FileLock } from 'llama-headstart/native';
import { functionCall, methodCalls } from './make-call.mjs';

export function fileCalls(args) {
  return {
    tryAcquire: [2, () => acquireCall(args)],
    release: [1, methodCalls(args, 'locks')('release', () => [])],
  };
}

/** The path may be a file that other calls read or write. Its lock must not disturb those calls. */
function acquireCall(args) {
  const { chance } = args;
  const path = chance.happens(0.8) ? join(args.options.directory, `${chance.below(4)}.lock`) : args.anyPath();
  const call = functionCall(args, [args.mostly(() => path)], (file) => FileLock.tryAcquire(file));
  return { ...call, keep: (lock) => lock && args.objects.add('locks', lock) };
}
