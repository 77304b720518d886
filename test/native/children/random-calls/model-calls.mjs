// Random calls of `Model`, and of functions that need no model.
import { jsonSchemaToGrammar, Model, setNativeLogger } from 'llama-headstart/native';
import { functionCall, methodCalls } from './make-call.mjs';
import { contextOptions, loadOptions, renderRequest, samplerOptions } from './options.mjs';

export function modelCalls(args) {
  const { chance } = args;
  const method = methodCalls(args, 'models');
  const token = () => chance.below(260);
  const adapterPath = () => (chance.happens(0.6) ? args.options.lora : args.anyPath());
  return {
    load: [
      1,
      () => functionCall(args, [args.mostly(() => loadOptions(args))], (options) => Model.load(options), 'models'),
    ],
    createContext: [5, method('createContext', () => [contextOptions(args)], 'contexts')],
    createSampler: [4, method('createSampler', () => [samplerOptions(args), ...args.withSignal()], 'samplers')],
    loadLora: [1, method('loadLora', () => [adapterPath(), ...args.withSignal()], 'loras')],
    contentHash: [4, () => contentHashCall(args)],
    tokenize: [3, method('tokenize', () => [args.text(), tokenizeOptions(args)])],
    detokenize: [3, method('detokenize', () => [args.tokens(chance.below(9)), detokenizeOptions(args)])],
    tokenToText: [1, method('tokenToText', () => [token()])],
    tokenToBytes: [2, method('tokenToBytes', () => [token(), args.some({ special: () => true })])],
    isControl: [1, method('isControl', () => [token()])],
    isEndOfGeneration: [2, method('isEndOfGeneration', () => [token()])],
    controlTokens: [1, method('controlTokens', () => [])],
    metadata: [1, method('metadata', () => [])],
    render: [3, method('render', () => [renderRequest(args), ...args.withSignal()], 'replies')],
    parseReply: [2, method('parseReply', () => [parseRequest(args), ...args.withSignal()])],
    jsonSchemaToGrammar: [
      1,
      () => functionCall(args, [args.mostly(() => args.schema()), ...args.withSignal()], jsonSchemaToGrammar),
    ],
    setNativeLogger: [1, () => functionCall(args, loggerArguments(args), setNativeLogger)],
  };
}

function tokenizeOptions(args) {
  return args.some({ addSpecial: () => true, parseSpecial: () => true, signal: () => args.signal() });
}

function detokenizeOptions(args) {
  return args.some({ special: () => true, signal: () => args.signal() });
}

function parseRequest(args) {
  return { rendered: args.object('replies'), text: args.text(), ...args.some({ partial: () => true }) };
}

function loggerArguments(args) {
  const level = () => args.chance.pick(['error', 'warn', 'info', 'debug']);
  return [args.mostly(() => () => {}), args.mostly(() => ({ level: level() }))];
}

/** Half of the calls load a new adapter, because an adapter remembers its hash. */
function contentHashCall(args) {
  const model = args.objects.pick('models');
  const adapter = args.objects.pick('loras');
  const options = args.withSignal(0.6);
  const run = async () => {
    const hashed = adapter && args.chance.happens(0.5) ? adapter : await model?.loadLora(args.options.lora);
    if (hashed !== undefined && hashed !== adapter) args.objects.add('loras', hashed);
    return hashed?.contentHash(...options);
  };
  return { shown: options, run };
}
