// All kinds of random calls. Each function of a table prepares one call: `{ shown, run, keep }`. `shown` contains the
// arguments, for the report of a failure. `run` makes the call. `keep` receives the result.
import { contextCalls } from './context-calls.mjs';
import { fileCalls } from './file-calls.mjs';
import { modelCalls } from './model-calls.mjs';
import { objectCalls } from './object-calls.mjs';
import { samplerCalls } from './sampler-calls.mjs';
import { stateCalls } from './state-calls.mjs';

/** Returns pairs `[kind, make]`. Each kind occurs as often as its weight says. */
export function allCalls(args) {
  const tables = [modelCalls, contextCalls, samplerCalls, stateCalls, fileCalls, objectCalls];
  return tables
    .flatMap((table) => Object.entries(table(args)))
    .flatMap(([kind, [weight, make]]) => Array.from({ length: weight }, () => [kind, make]));
}
