// All kinds of calls: each function of a table makes one random call, `{ shown, run, keep }`. `shown` are its arguments for a report of a
// failure, `run` makes the call, and `keep` receives its result.
import { contextCalls } from './context-calls.mjs';
import { fileCalls } from './file-calls.mjs';
import { modelCalls } from './model-calls.mjs';
import { objectCalls } from './object-calls.mjs';
import { samplerCalls } from './sampler-calls.mjs';
import { stateCalls } from './state-calls.mjs';

/** `[kind, make]`, as often as the weight of the kind. */
export function allCalls(args) {
  const tables = [modelCalls, contextCalls, samplerCalls, stateCalls, fileCalls, objectCalls];
  return tables
    .flatMap((table) => Object.entries(table(args)))
    .flatMap(([kind, [weight, make]]) => Array.from({ length: weight }, () => [kind, make]));
}
