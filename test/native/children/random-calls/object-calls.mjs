// Random calls for objects of any class: `close()`, getters, and objects of a wrong class as arguments.
import { SequenceState } from 'llama-headstart/native';

const GETTERS = [
  ['states', 'tokens'],
  ['states', 'byteLength'],
  ['states', 'metadata'],
  ['samplers', 'failure'],
  ['contexts', 'info'],
  ['models', 'info'],
];

export function objectCalls(args) {
  return {
    getters: [3, () => getterCall(args)],
    foreign: [1, () => foreignCall(args)],
    close: [4, () => closeCall(args)],
  };
}

function getterCall({ chance, objects }) {
  const [kind, name] = chance.pick(GETTERS);
  const owner = objects.pick(kind);
  return { shown: name, run: () => owner?.[name] };
}

/** Restores a state whose `raw` is a native object of another class, or is no native object. */
function foreignCall(args) {
  const { chance, objects } = args;
  const natives = objects.all().filter((object) => typeof object === 'object' && 'raw' in object);
  const raw = chance.happens(0.5) ? chance.pick(natives)?.raw : args.anything();
  const state = new SequenceState(raw ?? {});
  return { shown: raw, run: () => objects.pick('contexts')?.restoreSequence(0, state) };
}

/**
 * Closes an object. The object is rarely a model, because closing a model closes most other objects. Later calls use
 * some closed objects.
 */
function closeCall({ chance, objects }) {
  const kind = chance.happens(0.03) ? 'models' : chance.pick(['contexts', 'states', 'states', 'samplers', 'loras']);
  const owner = objects.pick(kind);
  return { shown: kind, run: () => owner?.close(), keep: () => chance.happens(0.8) && objects.forget(kind, owner) };
}
