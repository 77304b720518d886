// Random options for calls that take many options. `args` is an instance of the class Arguments.
import { CallerError } from './arguments.mjs';

const GRAMMARS = ['root ::= "a"', 'root ::= [a-z]+', 'root ::= ("a" | "b")* "c"', 'root ::=', 'root ::= root', ''];
const CACHE_TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'f7'];
const CHAT_TEMPLATES = ['{{ messages[0].content }}', '{% for %}', '{{ raise_exception("no") }}', ''];
const WRONG_MESSAGES = [
  [],
  [{}],
  [{ role: 'nobody', content: 5 }],
  [null],
  [{ role: 'user', content: [{ type: 'image_url' }] }],
];

export function loadOptions(args) {
  const { chance } = args;
  const { models, thread } = args.options;
  const fail = () => {
    throw new CallerError('progress');
  };
  return {
    path: chance.happens(0.8) ? chance.pick([models[thread], models[thread], ...models]) : args.anyPath(),
    ...args.some(
      {
        nGpuLayers: () => chance.pick([-1, 0, 99]),
        useMmap: () => chance.happens(0.5),
        useMlock: () => false,
        repackWeights: () => chance.happens(0.5),
        checkTensors: () => chance.happens(0.5),
        vocabularyOnly: () => chance.happens(0.5),
        onProgress: () => chance.pick([() => {}, fail]),
        signal: () => args.signal(),
      },
      0.1,
    ),
  };
}

export function contextOptions(args) {
  const { chance } = args;
  return {
    kvCells: chance.pick([64, 256, 512]),
    batchSize: chance.pick([16, 64, 64]),
    maxSequences: chance.happens(0.9) ? 3 : 1,
    ...args.some(
      {
        microBatchSize: () => chance.pick([1, 2, 16]),
        maxOutputs: () => chance.pick([1, 2, 3]),
        nThreads: () => chance.pick([1, 2, 9]),
        nThreadsBatch: () => chance.pick([1, 2]),
        kvLayout: () => chance.pick(['unified', 'split']),
        keyType: () => chance.pick(CACHE_TYPES),
        valueType: () => chance.pick(CACHE_TYPES),
        flashAttention: () => chance.happens(0.5),
        fullSlidingWindow: () => chance.happens(0.5),
        offloadKv: () => chance.happens(0.5),
        ropeScaling: () => chance.pick(['model', 'none', 'linear', 'yarn']),
        ropeFrequencyBase: () => chance.pick([0, 10_000, 1e38]),
        ropeFrequencyScale: () => chance.pick([0, 1, 1e-30]),
        kvCells: () => chance.pick([1, 512, 1000, 2 ** 28]),
        batchSize: () => chance.pick([1, 100, 2 ** 20 + 1]),
      },
      0.05,
    ),
    ...args.some({ signal: () => args.signal() }, 0.2),
  };
}

export function samplerOptions(args) {
  const { chance } = args;
  const trigger = { type: () => chance.pick(['word', 'token', 'pattern']), value: () => 'a', token: () => 5 };
  return args.some(
    {
      temperature: () => chance.pick([0, 0.7, 100]),
      dynamicTemperatureRange: () => chance.pick([0, 0.1]),
      topK: () => chance.pick([0, 1, 40]),
      topP: () => chance.number(),
      minP: () => chance.number(),
      typicalP: () => chance.number(),
      topNSigma: () => chance.number(),
      minKeep: () => chance.below(4),
      repeatPenalty: () => 1 + chance.number(),
      frequencyPenalty: () => chance.number(),
      penaltyLastTokens: () => chance.pick([0, 1, 64]),
      dry: () =>
        args.some({ multiplier: () => 1, base: () => 2, sequenceBreakers: () => chance.pick([[], ['\n'], [1]]) }),
      xtc: () => args.some({ probability: () => chance.number(), threshold: () => 0.1 }),
      mirostat: () => args.some({ version: () => chance.below(3), tau: () => 5, eta: () => 0.1 }),
      logitBias: () => chance.pick([{ 5: 1 }, new Map([[7, -Infinity]]), { x: 1 }, { 1e9: 1 }]),
      ignoreEos: () => chance.happens(0.5),
      seed: () => chance.below(2 ** 32),
      grammar: () => chance.pick(GRAMMARS),
      grammarLazy: () => chance.happens(0.5),
      grammarTriggers: () => [args.some(trigger, 0.9)],
      preservedTokens: () => ['<|im_end|>'],
      generationPrompt: () => chance.pick(['', 'a', args.text()]),
    },
    0.15,
  );
}

export function renderRequest(args) {
  const { chance } = args;
  const messages = [{ role: 'user', content: args.text() }];
  const tools = [{ type: 'function', function: { name: 'look', description: 'looks', parameters: args.schema() } }];
  return {
    messages: args.mostly(() => (chance.happens(0.9) ? messages : chance.pick(WRONG_MESSAGES))),
    ...args.some(
      {
        tools: () => tools,
        chatTemplate: () => chance.pick(CHAT_TEMPLATES),
        addGenerationPrompt: () => chance.happens(0.5),
        reasoning: () => chance.happens(0.5),
        toolChoice: () => chance.pick(['auto', 'required', 'none']),
        parallelToolCalls: () => chance.happens(0.5),
        jsonSchema: () => args.schema(),
        textOnly: () => chance.happens(0.5),
        reasoningFormat: () => chance.pick(['auto', 'none']),
      },
      0.2,
    ),
  };
}

/**
 * Makes a batch that continues up to three sequences. Another call may change the sequences before the decode. Some
 * batches have a wrong value.
 */
export async function decodeBatch(args, context) {
  const { chance } = args;
  const rows = await nextRows(args, context);
  const outputs = Uint8Array.from(rows, () => (chance.happens(0.5) ? 1 : 0));
  const batch = {
    tokens: args.tokens(rows.length),
    positions: Int32Array.from(rows, ({ position }) => position),
    sequences: Int32Array.from(rows, ({ sequence }) => sequence),
    outputs,
  };
  if (chance.happens(0.4)) {
    const length = outputs.reduce((sum, output) => sum + output, 0);
    const samplers = Array.from({ length }, () => (chance.happens(0.3) ? args.object('samplers') : null));
    batch.samplers = args.mostly(() => samplers);
  }
  if (chance.happens(0.1)) batch.signal = args.mostly(() => args.signal());
  if (chance.happens(0.1)) {
    const array = batch[chance.pick(['tokens', 'positions', 'sequences', 'outputs'])];
    array[chance.below(array.length)] = chance.pick([-1, 1, 2, 200, 2 ** 31 - 1, -(2 ** 31)]);
  }
  const replacements = { tokens: () => args.tokens(4), outputs: () => new Uint8Array(4) };
  return chance.happens(0.05) ? { ...batch, ...args.some(replacements) } : batch;
}

async function nextRows({ chance }, context) {
  const ids = [...new Set([0, chance.below(3), chance.below(3)])].filter((id) => id < context.info.maxSequences);
  const rows = [];
  for (const sequence of ids.slice(chance.below(ids.length))) {
    const { last } = await context.positionRange(sequence);
    const length = 1 + chance.below(chance.happens(0.7) ? 3 : 30);
    for (let at = 1; at <= length; at++) rows.push({ sequence, position: last + at });
  }
  return rows;
}
