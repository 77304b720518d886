// Random calls of `SequenceState`.
import { SequenceState } from 'llama-headstart/native';
import { functionCall, methodCalls } from './make-call.mjs';

export function stateCalls(args) {
  const { chance } = args;
  const path = () => (chance.happens(0.8) ? args.object('files') : args.anyPath());
  const bytes = () => (chance.happens(0.8) ? 1 + chance.below(1 << 24) : chance.pick([0, -1, 0.5, 2 ** 28 + 1]));
  const readOptions = () => args.some({ signal: () => args.signal(), unverified: () => false });
  return {
    share: [2, methodCalls(args, 'states')('share', () => [], 'states')],
    writeFile: [3, () => writeCall(args)],
    readFile: [
      3,
      () =>
        functionCall(args, [path(), args.mostly(readOptions)], (...all) => SequenceState.readFile(...all), 'states'),
    ],
    readMetadata: [1, () => functionCall(args, [path()], (file) => SequenceState.readMetadata(file))],
    reserve: [1, () => functionCall(args, [args.mostly(bytes)], (count) => SequenceState.reserve(count))],
  };
}

function writeCall(args) {
  const path = args.newFile();
  const signal = () => (args.chance.happens(0.2) ? [{ signal: args.signal() }] : []);
  const call = methodCalls(args, 'states')('writeFile', () => [path, args.metadata(), ...signal()])();
  return { ...call, keep: () => call.shown[0] === path && args.objects.add('files', path) };
}
