// Random calls of `Context`.
import { methodCalls } from './make-call.mjs';
import { decodeBatch } from './options.mjs';

export function contextCalls(args) {
  const { chance } = args;
  const method = methodCalls(args, 'contexts');
  const row = () => chance.below(8);
  const range = () => [chance.below(40), chance.below(40)].slice(chance.below(3));
  return {
    decode: [30, () => decodeCall(args)],
    logits: [3, method('logits', () => [row()])],
    logProbabilities: [3, method('logProbabilities', () => [row(), chance.below(20)])],
    setLoras: [2, method('setLoras', () => [[appliedLora(args)].slice(chance.below(2))])],
    setThreads: [2, method('setThreads', () => [chance.below(4), chance.below(4)].slice(chance.below(2)))],
    removeSequence: [8, method('removeSequence', () => [args.sequence(), ...range()])],
    copySequence: [4, method('copySequence', () => [args.sequence(), args.sequence()])],
    keepSequence: [1, method('keepSequence', () => [args.sequence()])],
    positionRange: [2, method('positionRange', () => [args.sequence()])],
    clear: [2, method('clear', () => [])],
    captureSequence: [8, () => captureCall(args)],
    stateBytes: [3, method('stateBytes', () => [args.sequence(), args.some({ partial: () => chance.happens(0.5) })])],
    restoreSequence: [
      8,
      method('restoreSequence', () => [args.sequence(), args.object('states'), ...args.withSignal()]),
    ],
    loadFile: [3, method('loadFile', () => [args.sequence(), args.object('files'), ...args.withSignal()])],
    counters: [1, method('counters', () => [])],
  };
}

function appliedLora(args) {
  return { adapter: args.object('loras'), ...args.some({ scale: () => args.chance.number() }) };
}

function decodeCall(args) {
  const context = args.objects.pick('contexts');
  const call = { run: () => {} };
  if (context === undefined) return call;
  call.run = async () => {
    call.shown = await args.mostly(() => decodeBatch(args, context));
    return context.decode(call.shown);
  };
  return call;
}

function captureCall(args) {
  const context = args.objects.pick('contexts');
  if (context === undefined) return { run: () => {} };
  const sequence = args.sequence();
  const options = args.some({
    partial: () => args.chance.happens(0.7),
    maxBytes: () => args.chance.below(100_000),
    signal: () => args.signal(),
  });
  const run = async () => {
    const { last } = await context.positionRange(sequence);
    const tokens = args.mostly(() => args.tokens(last + 1));
    return context.captureSequence(sequence, tokens, options);
  };
  return { shown: { sequence, options }, run, keep: (state) => args.objects.add('states', state) };
}
